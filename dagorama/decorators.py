"""The decorator: a call of a decorated method creates a node; type checkers see the signature of the method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from sys import _getframe
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from dagorama.calls.functions import DecoratedFunction
from dagorama.graph.hooks import MARK
from dagorama.graph.options import Options, unexpected_option

if TYPE_CHECKING:
    from dagorama.graph.cache import Cache
    from dagorama.graph.options import Codec
    from dagorama.graph.rates import Limit, Rate
    from dagorama.models.failure import Failure
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
    stream_children: bool = False,
    codec: Codec | None = None,
    rate: Rate | None = None,
    rate_key: Callable[..., str] | str | None = None,
    limit: Limit | None = None,
    cache: Cache | None = None,
) -> Decorator: ...
def dagorama(
    queue_name: Any = None, taint_name: str | None = None, retry: RetryConfiguration | None = None, **options: Any
) -> Any:
    """Decorate a method of a DAGDefinition: `@dagorama().syncfn`, `@dagorama().asyncfn`, or just `@dagorama`.

    A call on an instance creates a node and returns its promise at once; for type checkers it returns the annotated
    type. `greedy_execution=True` in a call runs the method immediately. A subclass overrides a decorated method with a
    decorated one.

    The options apply to all its nodes and survive restarts. Raises ValueError, which names an invalid option:

    - `queue_name`: a queue that workers may include or exclude; by default each method has its own.
    - `taint_name`: only workers that tolerate this taint run it.
    - `retry`: a StaticRetry or ExponentialRetry, by which failed attempts are repeated.
    - `timeout`: seconds after which an attempt is stopped and counts as failed.
    - `queue_timeout`: seconds that a node may wait for a worker before it fails with QueueTimeout.
    - `priority`: within an instance, nodes with a higher priority run first; the default is 0.
    - `max_concurrency`: the largest number of nodes that run at once, on all workers together.
    - `concurrency_key`: applies `max_concurrency` to each key separately. It is the name of a parameter, or a function
      that gets the arguments of the call with all defaults, without `self`, and returns a text. It is computed when the
      method is called, and cannot depend on the value of a promise.
    - `delay`: seconds before the first attempt, from the moment when the node could run.
    - `max_deaths`: the number of times that the process of the node may die before it fails with ProcessDied; the
      broker's default is 3.
    - `stream_children`: the child nodes of an attempt start while it still runs, not when it has returned. If the
      attempt fails, is cancelled, or its worker dies, unfinished child nodes are cancelled, and the next attempt makes
      new ones.
    - `codec`: "json" sends arguments and result as JSON, checked against the annotations of the method, which must be
      complete; a value that does not fit raises TypeMismatch. The default is "pickle", or the codec of
      the class: `class Orders(DAGDefinition, codec="json")`.
    - `rate`: a Rate, such as `Rate(10, per=60)`: at most 10 nodes start within any 60 seconds, on all workers together.
      Each attempt is a start.
    - `rate_key`: applies `rate` to each key separately; it is given like `concurrency_key`. If both are given they must
      be the same.
    - `limit`: a Limit, shared by all functions that name it, also in other definitions.
    - `cache`: equal calls share one value, as described by a Cache, for example `Cache(ttl=86_400)`.
    """
    if unknown := options.keys() - Options.names():
        raise TypeError(unexpected_option(min(unknown)))
    if isinstance(queue_name, str) or queue_name is None:
        return Decorator(Options(queue_name, taint_name, retry, **options))
    return Decorator()(queue_name)


@overload
def on_failure(function: Callable[[Any, Failure], R], /) -> NodeMethod[Callable[[Any, Failure], R]]: ...
@overload
def on_failure(
    *,
    retry: RetryConfiguration | None = None,
    queue_name: str | None = None,
    taint_name: str | None = None,
    timeout: float | None = None,
) -> HookDecorator: ...
def on_failure(
    function: Any = None,
    /,
    *,
    retry: RetryConfiguration | None = None,
    queue_name: str | None = None,
    taint_name: str | None = None,
    timeout: float | None = None,
) -> Any:
    """Decorate the method of a DAGDefinition that is called when an instance has failed: its failure hook.

    The method is sync or async and takes a Failure, the first one of the instance. The broker creates its node in the
    same transaction as the end of the last other node, so that the hook is as durable as the failure. Workers run it
    like any node, with these options of `@dagorama`. The instance ends when this node has ended. A hook that fails is a
    failed node, and is not called again. It is called again if failed nodes are retried and one of them fails. It is
    not called if the instance was cancelled. `resolve` does not wait for it.

    A definition has at most one. A subclass inherits it and may override it with another one of the same name. Raises
    ValueError for an invalid option or another signature.
    """
    decorate = HookDecorator(Options(queue_name, taint_name, retry, timeout=timeout, codec="pickle"))
    return decorate if function is None else decorate(function)


class HookDecorator:
    """The result of `on_failure(...)`."""

    def __init__(self, options: Options) -> None:
        self._decorator = Decorator(options)

    def __call__(self, function: Callable[[Any, Failure], R]) -> NodeMethod[Callable[[Any, Failure], R]]:
        wrapped: Any = self._decorator(function)
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise ValueError(
                f"{getattr(function, '__qualname__', function)} is a failure hook, which is called with a Failure and"
                f" nothing else besides self: {error}"
            ) from None
        setattr(wrapped, MARK, True)
        found: NodeMethod[Callable[[Any, Failure], R]] = wrapped
        return found


class Decorator:
    """The result of `dagorama(...)`; `.original_fn` of a decorated method is the undecorated function."""

    def __init__(self, options: Options = _DEFAULTS) -> None:
        self.options = options

    def __call__(self, function: Callable[Concatenate[Any, P], R]) -> NodeMethod[Callable[Concatenate[Any, P], R]]:
        """Decorate a sync or async function."""
        wrapped: NodeMethod[Callable[Concatenate[Any, P], R]] = self._wrapped(function)
        return wrapped

    def syncfn(self, function: Callable[Concatenate[Any, P], R]) -> NodeMethod[Callable[Concatenate[Any, P], R]]:
        """Decorate a function written with `def`; raise ValueError for others."""
        if iscoroutinefunction(function):
            name = function.__qualname__
            raise ValueError(f"{name} is written with `async def`: decorate it with @dagorama().asyncfn")
        return self(function)

    def asyncfn(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]
    ) -> NodeMethod[Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]]:
        """Decorate a function written with `async def`; raise ValueError for others."""
        if not iscoroutinefunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise ValueError(f"{name} is not written with `async def`: decorate it with @dagorama().syncfn")
        return self(function)

    def _wrapped(self, function: object) -> Any:
        if not isinstance(function, FunctionType):
            raise ValueError(f"@dagorama decorates a method written with `def` or `async def`, not {function!r}")
        if hasattr(function, "_dagorama_decorated"):
            raise ValueError(
                f"{function.__qualname__} is decorated twice: use one @dagorama or @on_failure, with all options"
            )
        decorated = DecoratedFunction(function, self.options)
        wrapper: Any = _async_wrapper(decorated) if decorated.is_async else _sync_wrapper(decorated)
        wrapper.original_fn = function
        wrapper._dagorama_decorated = decorated
        return wrapper


# The globals of these two must be importable: for local workers, cloudpickle pickles the wrappers with their globals.


def _sync_wrapper(decorated: DecoratedFunction) -> Callable[..., Any]:
    @wraps(decorated.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return decorated.call(args, kwargs, _getframe(1))

    return wrapper


def _async_wrapper(decorated: DecoratedFunction) -> Callable[..., Any]:
    # A plain function, so that wrong arguments and the line belong to the call, not to the await.
    @wraps(decorated.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return decorated.call_async(args, kwargs, _getframe(1))

    mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if mark is not None:
        mark(wrapper)
    return wrapper
