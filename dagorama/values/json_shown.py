"""The JSON in an envelope as text for people. Nothing here needs a signing key, verifies, or unpickles.

The rule: who shows such a text says whether the signature was verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from dagorama.api.contract import JSON, LARGE
from dagorama.errors import DagoramaError
from dagorama.values.envelope import SIGNAL_HEAD, content, flags, references, size_of, taken_apart

#: The text of each value is truncated to this many characters.
MOST_CHARACTERS = 4_000
#: Promises of a result whose nodes are named.
MOST_NAMED = 50

_MARKS = ("$promise", "$outcome")


class ShownJson(NamedTuple):
    """One argument, or the result of a node, whose `name` is empty."""

    name: str
    text: str


def shown_arguments(
    envelope: bytes, name: Callable[[bytes], str], most: int = MOST_CHARACTERS
) -> list[ShownJson] | None:
    """Return the arguments in an envelope, signed or opened, each as JSON; None if it is not JSON.

    `name` returns the text for the node of a promise.
    """
    if not _is_json(envelope):
        return None
    found = _read(envelope, name)
    if not isinstance(found, dict):
        return [ShownJson("", found)]
    return [ShownJson(parameter, _text(value, most)) for parameter, value in found.items()]


def shown_result(envelope: bytes, name: Callable[[bytes], str], most: int = MOST_CHARACTERS) -> ShownJson | None:
    """Return the result in an envelope as `shown_arguments` does; None if it is not JSON."""
    if envelope[:2] == SIGNAL_HEAD:
        return ShownJson("", _signal_text(envelope, most))
    if not _is_json(envelope):
        return None
    found = _read(envelope, name)
    return ShownJson("", found if isinstance(found, str) else _text(found.get("value"), most))


def _signal_text(envelope: bytes, most: int) -> str:
    """Return the JSON that someone has sent, of which nothing is signed; empty if the node took its default."""
    try:
        text = str(taken_apart(envelope).text, "utf-8", "replace")
    except DagoramaError as error:
        return f"it cannot be read ({type(error).__name__})"
    return (text if len(text) <= most else f"{text[:most]} ...") or "the default"


def promised_nodes(envelope: bytes) -> list[bytes]:
    """Return the IDs of the nodes of promises in a JSON envelope, the first MOST_NAMED; none if it is not JSON."""
    try:
        return references(envelope)[:MOST_NAMED] if _is_json(envelope) else []
    except DagoramaError:
        return []


def _is_json(envelope: bytes) -> bool:
    try:
        return bool(flags(envelope) & JSON)
    except DagoramaError:
        return False


def _read(envelope: bytes, name: Callable[[bytes], str]) -> dict[str, Any] | str:
    """Return the object in an envelope with texts in place of promises, or a sentence that says why it is not shown."""
    try:
        if flags(envelope) & LARGE:
            return f"JSON of {size_of(envelope):,} bytes, which are stored separately"
        sources = references(envelope)
        found = json.loads(bytes(content(envelope)), object_pairs_hook=_filling(sources, name))
    except (ValueError, RecursionError, DagoramaError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return found if isinstance(found, dict) else "it cannot be read (it is no object)"


def _filling(sources: list[bytes], name: Callable[[bytes], str]) -> Callable[[list[tuple[str, Any]]], Any]:
    def fill(pairs: list[tuple[str, Any]]) -> Any:
        if sources and len(pairs) == 1 and pairs[0][0] in _MARKS and isinstance(pairs[0][1], int):
            index = pairs[0][1]
            return f"<value of node {name(sources[index])}>" if 0 <= index < len(sources) else dict(pairs)
        return dict(pairs)

    return fill


def _text(value: object, most: int) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]} ..."
