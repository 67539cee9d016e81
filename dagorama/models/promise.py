"""A promise: the name of the value that a node will have.

The rule: a promise can be stored, compared with promises, copied, pickled, passed on and returned. Every other use
needs the value, which does not exist yet, and raises PromiseMisuse with the line where the promise was made.
"""

import copyreg
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pickle import HIGHEST_PROTOCOL, Pickler, loads
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast
from uuid import UUID

from dagorama.api.contract import ORIGIN_BYTES
from dagorama.errors import PromiseMisuse, ValueNotReadable
from dagorama.models import stored
from dagorama.models.misuse import comparison, refuse_attributes, refuse_value_uses

R_co = TypeVar("R_co", covariant=True)
P = TypeVar("P", bound="DAGPromise[Any]")

Place = tuple[str, int]
# origin, counter, instance, function name, arguments (or their args), kwargs, place
_Record = tuple[bytes, int, bytes | None, str | None, Any, Any, Place | None]


class InstanceRef(Protocol):
    """An object that stands for an instance: a DAGInstance, and nothing else that dagorama makes."""

    @property
    def instance_id(self) -> UUID: ...


def as_uuid(given: UUID | str, what: str) -> UUID:
    """Return a UUID, or the one that a text spells; raise TypeError or ValueError, which name `what` was expected."""
    if isinstance(given, UUID):
        return given
    if not isinstance(given, str):
        raise TypeError(f"{what} is given as a UUID or its text, not as {type(given).__name__}")
    try:
        return UUID(given)
    except ValueError:
        raise ValueError(f"{what} is given as a UUID or its text, and {given[:80]!r} is neither") from None


class DAGPromise(Generic[R_co]):
    """The promise of a value of type R: an ID of 16 bytes, and the line where it was made.

    `DAGPromise(identifier=UUID(text))` makes a promise from its text, `str(promise.identifier)`. A pickle contains the
    ID, instance, function name and line, but not the arguments.
    """

    # With one slot, making a promise is a single store, and assignments to other attributes can be refused.
    __slots__ = ("_record",)
    _record: _Record

    # `ndarray + promise` then calls the promise, instead of treating it as an array of objects.
    __array_ufunc__: ClassVar[None] = None

    def __init__(
        self, identifier: UUID | str, function_name: str | None = None, arguments: "DAGArguments | None" = None
    ) -> None:
        node_id = as_uuid(identifier, "a promise's identifier")
        _write(self, (*_split(node_id.bytes), None, function_name, arguments, None, None))

    @classmethod
    def _made(
        cls,
        origin: bytes,
        counter: int,
        instance_id: bytes,
        function_name: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        place: Place | None,
    ) -> "DAGPromise[Any]":
        """Return the promise of a new node; the arguments are kept, not copied."""
        promise = _new(cls)
        _write(promise, (origin, counter, instance_id, function_name, args, kwargs, place))
        return promise

    @property
    def identifier(self) -> UUID:
        return UUID(bytes=self.node_id)

    @property
    def node_id(self) -> bytes:
        """The 16 bytes of the ID: the origin, and the counter in big-endian order."""
        record = self._record
        return record[0] + record[1].to_bytes(4, "big")

    @property
    def instance_id(self) -> UUID | None:
        """The instance of the node; None if the promise was made from an identifier alone."""
        return None if self._record[2] is None else UUID(bytes=self._record[2])

    @property
    def function_name(self) -> str | None:
        return self._record[3]

    @property
    def arguments(self) -> "DAGArguments | None":
        """The arguments of the node, in the process that called it; None in other processes."""
        args, kwargs = self._record[4:6]
        if kwargs is None:
            return cast("DAGArguments | None", args)
        return DAGArguments(calltime_args=args, calltime_kwargs=kwargs)

    @property
    def _origin(self) -> bytes:
        return self._record[0]

    @property
    def _counter(self) -> int:
        return self._record[1]

    @property
    def _instance_bytes(self) -> bytes | None:
        return self._record[2]

    @property
    def _place(self) -> Place | None:
        return self._record[6]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DAGPromise):
            return self._record[:2] == other._record[:2]
        # After NotImplemented Python would compare identities, and the result would be False.
        raise PromiseMisuse(_explain(self, comparison(other)))

    def __hash__(self) -> int:
        record = self._record
        return hash(record[0]) + record[1]

    def __copy__(self) -> "DAGPromise[R_co]":
        return self

    def __deepcopy__(self, memo: object) -> "DAGPromise[R_co]":
        return self

    def __reduce__(self) -> tuple[Callable[..., "DAGPromise[Any]"], tuple[object, ...]]:
        _, _, instance_id, function_name, _, _, place = self._record
        return restore_promise, (self.node_id, instance_id, function_name, place)

    def __repr__(self) -> str:
        # A promise without a record (of object.__new__, or partly unpickled) must still be printable.
        if getattr(self, "_record", None) is None:
            return "<DAGPromise, not initialized>"
        return f"<DAGPromise {self.identifier}{_of(self)}>"


@stored.named("promise")
def restore_promise(
    node_id: bytes, instance_id: bytes | None, function_name: str | None, place: Place | None
) -> DAGPromise[Any]:
    """Return a promise from its pickle, which does not contain its arguments."""
    promise = _new(DAGPromise)
    _write(promise, (*_split(node_id), instance_id, function_name, None, None, place))
    return promise


def copy_as(kind: type[P], promise: DAGPromise[Any]) -> P:
    """Return a promise as an object of another class."""
    copy = _new(kind)
    _write(copy, promise._record)
    return copy


def _split(node_id: bytes) -> tuple[bytes, int]:
    return node_id[:ORIGIN_BYTES], int.from_bytes(node_id[ORIGIN_BYTES:], "big")


def _of(promise: DAGPromise[Any]) -> str:
    name, place = promise.function_name, promise._place
    # The name on the wire is "module:Class.method", followed by "@module:Class" for a super() call.
    text = f" of `{name.partition(':')[2].partition('@')[0] or name}`" if name else ""
    return text + (f", made at {place[0]}:{place[1]}" if place else "")


def _explain(promise: DAGPromise[Any], use: str) -> str:
    if getattr(promise, "_record", None) is None:
        return f"{use} needs a value: this is a promise that was not initialized"
    return (
        f"{use} needs a value that does not exist yet: this is a promise{_of(promise)}; "
        "pass it to another @dagorama method, or return it"
    )


_new = object.__new__
_write = cast("Callable[[DAGPromise[Any], _Record], None]", DAGPromise.__dict__["_record"].__set__)

refuse_value_uses(DAGPromise, _explain, "promise")
refuse_attributes(DAGPromise, _explain, "DAGPromise")


# --- the arguments of a promise ----------------------------------------------------------------------


@dataclass
class DAGArguments:
    """The arguments of a method, without `self`; they may contain promises."""

    calltime_args: Sequence[Any]
    calltime_kwargs: Mapping[str, Any]

    def to_server_bytes(self) -> bytes:
        """Return a pickle in which promises have only their identifiers."""
        file = BytesIO()
        pickler = Pickler(file, HIGHEST_PROTOCOL)
        pickler.dispatch_table = {**copyreg.dispatch_table, DAGPromise: _identifier_only}
        pickler.dump(DAGArguments(self.calltime_args, self.calltime_kwargs))
        return file.getvalue()

    @classmethod
    def from_server_bytes(cls, b: bytes) -> "DAGArguments":
        """Return the arguments in a pickle; the bytes must come from a trusted source."""
        arguments = loads(b)
        if not isinstance(arguments, cls):
            raise ValueNotReadable(f"these bytes hold a {type(arguments).__qualname__}, not DAGArguments")
        return arguments


# Pickles name the class by the import path that dagorama 0.1.10 has.
DAGArguments.__module__ = "dagorama.models.arguments"


def _identifier_only(promise: DAGPromise[Any]) -> tuple[type[DAGPromise[Any]], tuple[object, ...]]:
    return DAGPromise, (promise.identifier,)
