"""The arguments of one call, as the original's callers know them. Our own wire uses `dagorama.values.codec`."""

import copyreg
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pickle import HIGHEST_PROTOCOL, Pickler, loads
from typing import Any

from dagorama.errors import ValueNotReadable
from dagorama.models.promise import DAGPromise


@dataclass
class DAGArguments:
    """What a method was called with, without `self`; promises may stand anywhere in it."""

    calltime_args: Sequence[Any]
    calltime_kwargs: Mapping[str, Any]

    def to_server_bytes(self) -> bytes:
        """A pickle in which each promise is its identifier and nothing else."""
        file = BytesIO()
        pickler = Pickler(file, HIGHEST_PROTOCOL)
        pickler.dispatch_table = {**copyreg.dispatch_table, DAGPromise: _identifier_only}
        pickler.dump(DAGArguments(self.calltime_args, self.calltime_kwargs))
        return file.getvalue()

    @classmethod
    def from_server_bytes(cls, b: bytes) -> "DAGArguments":
        """Unpickles: only for bytes that come from somebody trusted."""
        arguments = loads(b)
        if not isinstance(arguments, cls):
            raise ValueNotReadable(f"these bytes hold a {type(arguments).__qualname__}, not DAGArguments")
        return arguments


def _identifier_only(promise: DAGPromise[Any]) -> tuple[type[DAGPromise[Any]], tuple[object, ...]]:
    return DAGPromise, (promise.identifier,)
