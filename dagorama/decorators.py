"""The decorator: a method under it becomes a node where it is called, and keeps its signature for the type checker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from sys import _getframe
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from dagorama.functions import Decorated
from dagorama.graph.options import Options, unexpected_option

if TYPE_CHECKING:
    from dagorama.models.method_types import NodeMethod
    from dagorama.retry import RetryConfiguration

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULTS = Options()


@overload
def dagorama(function: Callable[Concatenate[Any, P], R], /) -> NodeMethod[Callable[Concatenate[Any, P], R]]: ...
@overload
def dagorama(
    queue_name: str | None = None,
    taint_name: str | None = None,
    retry: RetryConfiguration | None = None,
    *,
    timeout: float | None = None,
    queue_timeout: float | None = None,
    priority: int = 0,
    max_concurrency: int | None = None,
    concurrency_key: Callable[..., str] | str | None = None,
    delay: float = 0,
    max_deaths: int | None = None,
    eager: bool = False,
) -> Decorator: ...
def dagorama(
    queue_name: Any = None, taint_name: str | None = None, retry: RetryConfiguration | None = None, **options: Any
) -> Any:
    """Decorates a method of a DAGDefinition: `@dagorama().syncfn`, `@dagorama().asyncfn`, or plainly `@dagorama`.

    Called on an instance, the method describes a node and returns its promise at once; to the type checker it
    returns what it is annotated with. `greedy_execution=True` in a call runs the method there and then. A subclass
    overrides a decorated method with a decorated one.

    Its nodes run under these rules, all of which survive restarts; ValueError says which one cannot be:

    - `queue_name`: a queue that workers may include or exclude; by default each method has its own.
    - `taint_name`: only workers that tolerate this taint run it.
    - `retry`: a failed run is repeated, as StaticRetry or ExponentialRetry say.
    - `timeout`: seconds after which a run is stopped, which counts as a failed one.
    - `queue_timeout`: seconds that a node may wait for a worker before it fails.
    - `priority`: within an instance, nodes of a higher one go first; the default is 0.
    - `max_concurrency`: so many nodes run at once, on all workers together.
    - `concurrency_key`: the same for each key apart. The name of a parameter, or a function that is called as the
      method is, without `self` and with all defaults, and returns a text. It is worked out where the method is
      called, and so cannot depend on a promise.
    - `delay`: seconds before the first run, counted from when the node could run.
    - `max_deaths`: so many times may a node take its process down with it before it fails; the default is the
      broker's, 3.
    - `eager`: the nodes that a run makes start while it still runs, not when it has returned. When the run comes to
      nothing (it fails, is cancelled, its worker dies) those that have not ended are cancelled, and the next run
      makes its own.
    """
    if unknown := options.keys() - Options.names():
        raise TypeError(unexpected_option(min(unknown)))
    if isinstance(queue_name, str) or queue_name is None:
        return Decorator(Options(queue_name, taint_name, retry, **options))
    return Decorator()(queue_name)


class Decorator:
    """What `dagorama(...)` returns; `.original_fn` of what it decorates is the plain function."""

    def __init__(self, options: Options = _DEFAULTS) -> None:
        self.options = options

    def __call__(
        self, function: Callable[Concatenate[Any, P], R]
    ) -> NodeMethod[Callable[Concatenate[Any, P], R]]:
        """Decorates a function of either kind."""
        wrapped: NodeMethod[Callable[Concatenate[Any, P], R]] = self._wrapped(function)
        return wrapped

    def syncfn(self, function: Callable[Concatenate[Any, P], R]) -> NodeMethod[Callable[Concatenate[Any, P], R]]:
        """Decorates a function written with `def`; raises ValueError for any other."""
        if iscoroutinefunction(function):
            name = function.__qualname__
            raise ValueError(f"{name} is written with `async def`: decorate it with @dagorama().asyncfn")
        return self(function)

    def asyncfn(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]
    ) -> NodeMethod[Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]]:
        """Decorates a function written with `async def`; raises ValueError for any other."""
        if not iscoroutinefunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise ValueError(f"{name} is not written with `async def`: decorate it with @dagorama().syncfn")
        return self(function)

    def _wrapped(self, function: object) -> Any:
        if not isinstance(function, FunctionType):
            raise ValueError(f"@dagorama decorates a method written with `def` or `async def`, not {function!r}")
        decorated = Decorated(function, self.options)
        wrapper: Any = _async_wrapper(decorated) if decorated.is_async else _sync_wrapper(decorated)
        wrapper.original_fn = function
        wrapper._dagorama_decorated = decorated
        return wrapper


# What these two name has to be importable: for local workers, cloudpickle takes them along with their globals.


def _sync_wrapper(decorated: Decorated) -> Callable[..., Any]:
    @wraps(decorated.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return decorated.call(args, kwargs, _getframe(1))

    return wrapper


def _async_wrapper(decorated: Decorated) -> Callable[..., Any]:
    # A plain function: wrong arguments and the place show where it is called, not where it is awaited.
    @wraps(decorated.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return decorated.call_async(args, kwargs, _getframe(1))

    mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if mark is not None:
        mark(wrapper)
    return wrapper
