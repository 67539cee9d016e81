"""`refresh(self.work)(...)`: a call that runs in any case, and whose value replaces the cached one.

The rule: nodes that such a node creates are refreshed too, so that no part of the new value is old.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from sys import _getframe
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dagorama.calls.functions import GREEDY, DecoratedFunction, from_wrapper

if TYPE_CHECKING:
    from dagorama.models.method_types import BoundNodeMethod, OnlyAny

P = ParamSpec("P")
R = TypeVar("R")


# A method of a DAGInstance is Any, which only this overload fits.
@overload
def refresh(function: OnlyAny) -> Any: ...
@overload
def refresh(function: BoundNodeMethod[Any, P, R]) -> Callable[P, R]: ...
@overload
def refresh(function: Callable[P, R]) -> Callable[P, R]: ...
def refresh(function: Any) -> Any:
    """Return a function that calls `function` so that its node runs, even if its value is cached.

    `refresh(self.embed)(text)` is typed and called as `self.embed(text)`. The new value replaces the cached one. Nodes
    that the node creates are refreshed too. `start(MyTask(), refresh=True)(8)` does it for a whole instance.

    Raises TypeError if `function` is not a decorated method.
    """
    method = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(method, FunctionType) or "_dagorama_decorated" not in method.__dict__:
        raise TypeError(
            f"refresh() takes a decorated method, as in refresh(self.work)(...), and was given {function!r}; "
            "start(definition, refresh=True) refreshes an instance"
        )
    instance = (function.__self__,) if isinstance(function, MethodType) else ()
    return _RefreshedCall(from_wrapper(method), instance)


class _RefreshedCall:
    """A decorated method that is about to be called."""

    def __init__(self, decorated: DecoratedFunction, instance: tuple[object, ...]) -> None:
        self._decorated = decorated
        self._instance = instance
        update_wrapper(self, decorated.function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorated = self._decorated
        if GREEDY in kwargs and not decorated.has_greedy:
            name = decorated.function.__qualname__
            raise TypeError(f"{name} is refreshed, and {GREEDY} would run it here: leave one of them out")
        call = decorated.call_async if decorated.is_async else decorated.call
        return call((*self._instance, *args), kwargs, _getframe(1), None, True)
