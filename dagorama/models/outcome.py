"""Outcomes: promises that are resolved in any case, to the value or to a Failure."""

from typing import Any, TypeVar, overload

from dagorama.errors import PromiseMisuse
from dagorama.models import stored
from dagorama.models.failure import Failure
from dagorama.models.promise import DAGPromise, Place, copy_as, restore_promise

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Outcome(DAGPromise[R_co]):
    """A promise whose node may fail. Only the pickler and resolve() tell it from the promise itself."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, super().__reduce__()[1]

    def __repr__(self) -> str:
        return f"<outcome of {super().__repr__()}>"


@overload
def outcome(value: DAGPromise[R], /) -> DAGPromise[R | Failure]: ...
# In annotated code the promise of a decorated call is an R, and type checkers take the first overload that fits.
@overload
def outcome(value: R, /) -> R | Failure: ...
def outcome(value: Any, /) -> Any:
    """Return a promise whose receiver gets the value or a Failure, so that a failure of its node spreads no further.

    Use it anywhere in the arguments of a decorated call, `self.rollup([outcome(part) for part in parts])`, or in
    `resolve(instance, outcome(promise))`. If the same call also gets the promise without outcome(), a failure of its
    node makes it fail. A value that is not a promise is returned unchanged.
    """
    if isinstance(value, DAGPromise):
        return copy_as(Outcome, value)
    if isinstance(value, (list, tuple, set, frozenset, dict)) and _holds_a_promise(value):
        raise PromiseMisuse("outcome() takes one promise: write [outcome(promise) for promise in promises]")
    return value


def _holds_a_promise(value: Any) -> bool:
    return any(isinstance(part, DAGPromise) for part in (value.values() if isinstance(value, dict) else value))


@stored.named("outcome")
def _restore(node_id: bytes, instance_id: bytes | None, name: str | None, place: Place | None) -> Outcome[Any]:
    """Return an outcome from its pickle."""
    return copy_as(Outcome, restore_promise(node_id, instance_id, name, place))
