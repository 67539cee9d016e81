"""The types of decorated methods and entry points for type checkers; at run time these are plain functions.

The rule: a call has the parameters and the result of the decorated function. `F` is that function with any `self`, so
that a subclass may override it. Checkers apply `__get__` when an attribute is read. Pyright does not apply it when it
compares a definition with a protocol: it calls NodeMethod as a bound method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, final, overload

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F_co = TypeVar("F_co", bound=Callable[..., Any], covariant=True)


class BoundNodeMethod(Protocol[F_co, P, R_co]):
    """The type of `self.work`: a call creates a node, or with `greedy_execution=True` runs the method here."""

    @property
    def original_fn(self) -> F_co: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    # No parameter can be added to a ParamSpec, so the other arguments of such a call are not checked.
    @overload
    def __call__(self, *args: Any, greedy_execution: bool, **kwargs: Any) -> R_co: ...


class UnboundNodeMethod(Protocol[F_co]):
    """The type of `Task.work`, whose first argument is the instance."""

    @property
    def original_fn(self) -> F_co: ...

    @overload
    def __call__(self: UnboundNodeMethod[Callable[P, R]], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self: UnboundNodeMethod[Callable[P, R]], *args: Any, greedy_execution: bool, **kwargs: Any) -> R: ...


class NodeMethod(Protocol[F_co]):
    """The type of the attribute of the class: a decorated method before it is bound."""

    @property
    def original_fn(self) -> F_co: ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> UnboundNodeMethod[F_co]: ...
    @overload
    def __get__(
        self: NodeMethod[Callable[Concatenate[Any, P], R]], instance: object, owner: type | None = None, /
    ) -> BoundNodeMethod[F_co, P, R]: ...

    def __call__(self: NodeMethod[Callable[Concatenate[Any, P], R]], *args: P.args, **kwargs: P.kwargs) -> R: ...


@final
class OnlyAny:
    """A type without objects, so an entry point that returns it returns Any."""


class EntryOf(Protocol[P, R_co]):
    """A definition as the type checker sees it: parameters and result of its entry point."""

    @property
    def entrypoint(self) -> Callable[P, R_co]: ...
