"""Nodes that wait for a signal: its name, its type, and their timeout.

The rule: a wait is an ordinary node of its batch, with signed arguments; only the broker completes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from re import fullmatch
from typing import Any

from dagorama.api import broker_pb2
from dagorama.api.contract import LONGEST_SCHEMA, LONGEST_SIGNAL, LONGEST_WAIT, SIGNAL_NAME
from dagorama.retry import check_positive_seconds
from dagorama.values.codec import Encoded, encode_call
from dagorama.values.typed_json import TypedJson, json_type

#: The largest number of bytes of a wait in a message, in addition to its schema and its name.
WAIT_BYTES = 24


@dataclass(frozen=True, slots=True)
class Wait:
    """The signal that a node waits for."""

    name: str  #: of the signal
    annotation: Any  #: the type of its value
    timeout: float  #: seconds; 0: none
    default: bytes | None  #: JSON of the value that it takes after the timeout; None: it fails then
    schema: bytes  #: JSON schema of the type; empty: it is too long

    def arguments(self) -> Encoded:
        """Return the arguments of the node in an envelope. Raises NotPicklable, or ValueError if they are too long."""
        encoded = encode_call((self.name, self.annotation, self.default), {})
        if len(encoded.envelope) > LONGEST_WAIT - 1_000:  # the signature is added
            raise ValueError(
                f"the type and the default of the signal {self.name!r} take {len(encoded.envelope):,} bytes;"
                f" {LONGEST_WAIT - 1_000:,} are allowed"
            )
        return encoded

    @property
    def weight(self) -> int:
        """The largest number of bytes of the wait in a message."""
        return WAIT_BYTES + 4 * len(self.name) + len(self.schema)


def check_signal_name(name: object) -> None:
    """Raise TypeError or ValueError if this cannot be the name of a signal."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a signal is {name!r}: it must be a str")
    if not fullmatch(SIGNAL_NAME, name):
        raise ValueError(f'the name of a signal is {name!r}: it must have 1 to 100 letters, digits, "_", "." and "-"')


def wait_of(name: str, annotation: Any, timeout: float | None, default: tuple[Any] | None) -> Wait:
    """Return what a node waits for; `default` holds the default, if there is one.

    Raises TypeError, ValueError, or TypeMismatch if the type has no JSON form or the default is not of the type.
    """
    check_signal_name(name)
    check_positive_seconds(timeout=timeout)
    kind = json_type(annotation)
    text = None
    if default is not None:
        if timeout is None:
            raise ValueError(f"wait_for({name!r}) has a default and no timeout, after which it would be taken")
        text = kind.encode(default[0], f"the default of the signal {name!r}")
        if len(text) > LONGEST_SIGNAL:
            raise ValueError(
                f"the default of the signal {name!r} has {len(text):,} bytes; {LONGEST_SIGNAL:,} are allowed"
            )
    return Wait(name, annotation, timeout or 0.0, text, _schema_of(kind))


def _schema_of(kind: TypedJson) -> bytes:
    schema = json.dumps(kind.schema(), separators=(",", ":")).encode()
    return schema if len(schema) <= LONGEST_SCHEMA else b""


def add_waits(message: broker_pb2.Nodes, waits: Mapping[int, Wait], start: int, stop: int) -> None:
    """Add the waits of the nodes from `start` to `stop` to their message; `waits` has them by position."""
    for position in sorted(waits.keys() & range(start, stop)):
        wait = waits[position]
        message.waits.add(
            node=position - start,
            name=wait.name,
            timeout=wait.timeout,
            has_default=wait.default is not None,
            schema=wait.schema,
        )
