"""`later(self.work, seconds)(...)` and `at(self.work, when)(...)`: calls whose nodes start later than they could.

The rule: the delay belongs to the one node that the call creates. The broker keeps it, and the node holds no worker
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import update_wrapper
from sys import _getframe
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dagorama.calls.functions import GREEDY, DecoratedFunction, from_wrapper
from dagorama.calls.instance_start import DefinitionStart
from dagorama.definition import DAGDefinition, DAGInstance
from dagorama.graph.delays import TWICE, Delay, delay_after, delay_until
from dagorama.graph.start_options import start_options

if TYPE_CHECKING:
    from dagorama.models.method_types import BoundNodeMethod, EntryOf, OnlyAny
    from dagorama.models.promise import DAGPromise

P = ParamSpec("P")
R = TypeVar("R")


# A method of a DAGInstance is Any, which only this overload fits.
@overload
def later(function: OnlyAny, seconds: float) -> Any: ...
@overload
def later(function: BoundNodeMethod[Any, P, R], seconds: float) -> Callable[P, R]: ...
@overload
def later(function: EntryOf[P, OnlyAny], seconds: float) -> Callable[P, tuple[DAGInstance, DAGPromise[Any]]]: ...
# An async entry point is also a sync one that returns a coroutine; checkers take the first overload that fits.
@overload
def later(  # type: ignore[overload-overlap]
    function: EntryOf[P, Coroutine[Any, Any, R]], seconds: float
) -> Callable[P, Coroutine[Any, Any, tuple[DAGInstance, DAGPromise[R]]]]: ...
@overload
def later(function: EntryOf[P, R], seconds: float) -> Callable[P, tuple[DAGInstance, DAGPromise[R]]]: ...
@overload
def later(function: Callable[P, R], seconds: float) -> Callable[P, R]: ...
def later(function: Any, seconds: float) -> Any:
    """Return a function that calls `function` so that its node starts `seconds` after it could.

    `later(self.remind, 86_400)(user)` is typed and called as `self.remind(user)`. The seconds count from the moment
    when all sources of the node have completed. If the function has the option `delay` too, the longer time counts.
    Meanwhile the node is in the state BACKOFF: it holds no worker, survives restarts, and can be cancelled.

    `later(MyTask(), 60)(8)` starts an instance whose entry point runs then, and returns `(instance, promise)` at once;
    `later(start(MyTask(), id="order-42"), 60)(8)` gives it an ID too. The entry point must be decorated.

    Raises ValueError for seconds below 0, an entry point that is not decorated, or a call that is delayed already;
    TypeError if `function` is neither a decorated method, nor a definition, nor the result of start().
    """
    return _delayed(function, delay_after(seconds), "later")


@overload
def at(function: OnlyAny, when: datetime) -> Any: ...
@overload
def at(function: BoundNodeMethod[Any, P, R], when: datetime) -> Callable[P, R]: ...
@overload
def at(function: EntryOf[P, OnlyAny], when: datetime) -> Callable[P, tuple[DAGInstance, DAGPromise[Any]]]: ...
# As for later().
@overload
def at(  # type: ignore[overload-overlap]
    function: EntryOf[P, Coroutine[Any, Any, R]], when: datetime
) -> Callable[P, Coroutine[Any, Any, tuple[DAGInstance, DAGPromise[R]]]]: ...
@overload
def at(function: EntryOf[P, R], when: datetime) -> Callable[P, tuple[DAGInstance, DAGPromise[R]]]: ...
@overload
def at(function: Callable[P, R], when: datetime) -> Callable[P, R]: ...
def at(function: Any, when: datetime) -> Any:
    """Return a function that calls `function` so that its node does not start before `when`.

    `at(self.close, auction.ends)(auction.id)` works like `later`, with a date instead of seconds. `when` needs a time
    zone. If it has passed, the node starts at once. The broker's clock decides: if the clock is set, or the machine has
    slept, the node starts at the date by the new time.

    Raises ValueError for a datetime without a time zone, and the errors of `later`.
    """
    return _delayed(function, delay_until(when), "at")


def _delayed(function: Any, delay: Delay, by: str) -> Any:
    if isinstance(function, DAGDefinition) and not isinstance(function, DAGInstance):
        return DefinitionStart(function, start_options()).after(delay)
    if isinstance(function, DefinitionStart):
        return function.after(delay)
    if isinstance(function, _DelayedCall):
        raise ValueError(TWICE.format(name=function.name))
    method = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(method, FunctionType) or "_dagorama_decorated" not in method.__dict__:
        raise TypeError(
            f"{by}() takes a decorated method, as in {by}(self.work, ...), a definition or start(...), and was given"
            f" {function!r}"
        )
    instance = (function.__self__,) if isinstance(function, MethodType) else ()
    return _DelayedCall(from_wrapper(method), instance, delay)


class _DelayedCall:
    """A decorated method that is about to be called."""

    def __init__(self, decorated: DecoratedFunction, instance: tuple[object, ...], delay: Delay) -> None:
        self._decorated = decorated
        self._instance = instance
        self._delay = delay
        update_wrapper(self, decorated.function, updated=())

    @property
    def name(self) -> str:
        """The name of the method, with its class."""
        return self._decorated.function.__qualname__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if GREEDY in kwargs and not self._decorated.has_greedy:
            raise TypeError(f"{self.name} is delayed, and {GREEDY} would run it here: leave one of them out")
        call = self._decorated.call_async if self._decorated.is_async else self._decorated.call
        return call((*self._instance, *args), kwargs, _getframe(1), self._delay)
