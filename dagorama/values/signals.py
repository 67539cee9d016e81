"""The values of nodes that wait for signals: a signed statement of the waiting node, and JSON that is not signed.

    bytes 0, 1   the version, and the flag SIGNAL without any other
    u32          length of the arguments   (little-endian)
    arguments    the envelope of the arguments of the node: the name of the signal, its type, and its default as JSON
    body         JSON in UTF-8; empty: the default

The broker puts both together. The signature of the arguments says that this node waits for a signal, and of which type.
So a broker can present a signal as the value of no other node, and it never chooses the type; the JSON is not signed.

The rule: only the arguments are unpickled, after their signature was verified for this node. JSON runs no code.
"""

from __future__ import annotations

from typing import Any

from dagorama.errors import ValueNotReadable
from dagorama.values.codec import decode_call
from dagorama.values.envelope import taken_apart
from dagorama.values.typed_json import json_type


def read_signal(envelope: bytes) -> Any:
    """Return the value in the envelope of a signal, whose arguments were opened.

    Raises TypeMismatch, with the name of the signal and the place in it, if it is not JSON of the type that the node
    waits for, and ValueNotReadable.
    """
    parts = taken_apart(envelope)
    (name, annotation, default), _ = decode_call(parts.arguments)
    text = parts.text or default
    if not isinstance(text, bytes):
        raise ValueNotReadable(f"the broker says that the signal {name!r} has its default, and it has none")
    return json_type(annotation).decode(text, f"the signal {name!r}")
