"""References to stored values: put() returns one.

The rule: nodes get the plain value. In the process that called put(), every use of the reference as the value raises
PromiseMisuse.
"""

from collections.abc import Callable
from typing import Any

from dagorama.errors import PromiseMisuse
from dagorama.models import stored
from dagorama.models.misuse import comparison, refuse_attributes, refuse_value_uses

Place = tuple[str, int]


class ValueRef:
    """A reference to a value of put(). It may be passed on, returned, copied and pickled any number of times."""

    __slots__ = ("_envelope", "_kind", "_place", "_size")
    _envelope: bytes  #: unsigned; it contains the digests of large parts
    _kind: str  #: the type of the value, for people
    _place: Place | None
    _size: int

    # `ndarray + reference` then calls the reference, instead of treating it as an array of objects.
    __array_ufunc__ = None

    def __init__(self, envelope: bytes, kind: str, size: int, place: Place | None) -> None:
        for name, value in (("_envelope", envelope), ("_kind", kind), ("_size", size), ("_place", place)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ValueRef):
            return self._envelope == other._envelope
        # After NotImplemented Python would compare identities, and the result would be False.
        raise PromiseMisuse(_explain(self, comparison(other)))

    def __hash__(self) -> int:
        return hash(self._envelope)

    def __copy__(self) -> "ValueRef":
        return self

    def __deepcopy__(self, memo: object) -> "ValueRef":
        return self

    def __reduce__(self) -> tuple[Callable[..., "ValueRef"], tuple[object, ...]]:
        return _restore, (self._envelope, self._kind, self._size, self._place)

    def __repr__(self) -> str:
        # A reference without attributes (of object.__new__, or partly unpickled) must still be printable.
        if not hasattr(self, "_place"):
            return "<kept value, not initialized>"
        return f"<kept {_described(self)}>"


@stored.named("value_ref")
def _restore(envelope: bytes, kind: str, size: int, place: Place | None) -> ValueRef:
    """Return a reference from its pickle."""
    return ValueRef(envelope, kind, size, place)


def _described(kept: ValueRef) -> str:
    text = f"{kept._kind} of {kept._size:,} bytes"
    return text if kept._place is None else f"{text}, put at {kept._place[0]}:{kept._place[1]}"


def _explain(kept: Any, use: str) -> str:
    what = f", a {_described(kept)}" if hasattr(kept, "_place") else ""
    return (
        f"{use} needs the value: this is the reference that put() has returned{what}; "
        "pass it to a @dagorama method, which gets the value, or use what you gave to put()"
    )


# Without __await__, inspect.isawaitable() returns False for a reference.
refuse_value_uses(ValueRef, _explain, "kept", allowed=["__await__"])
refuse_attributes(ValueRef, _explain, "kept value")
