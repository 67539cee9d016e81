"""Pages of failed nodes, from the beginnings of their stored failures. Checksums of these are not compared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from dagorama_broker.model.domain import Failure
from dagorama_broker.model.queries import LONGEST_BEGINNING, FailurePage
from dagorama_broker.store.sql.reader import Reader

#: Characters of a stored failure that are read: it begins with its function, type and message, in ASCII.
BEGINNING = 450
#: The beginning for a node without a stored failure.
NAMELESS = '["", "", "", '
NO_FAILURES = FailurePage((), (), (), (), (), {}, 0)
#: Text that JSON has between two strings, but never within one.
_STRINGS = '", "'
_DOWNSTREAM = (
    "SELECT root_cause, count(*) FROM {table} INDEXED BY {table}_root_causes"
    " WHERE root_cause != 0 AND root_cause BETWEEN ? AND ? AND key != root_cause GROUP BY root_cause"
)
_CUT_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-f]{0,3})?$")


def failure_page(
    reader: Reader, keys: Sequence[int], ended: Sequence[float], beginnings: Sequence[str], limit: int
) -> FailurePage:
    """Return these nodes, of which there is at least one, as a page of at most `limit`."""
    heads = [beginning.split(_STRINGS, 3) for beginning in beginnings]
    if min(map(len, heads)) < 3:
        heads = [_whole(reader, key, head) for key, head in zip(keys, heads, strict=True)]
    return FailurePage(
        keys,
        ended,
        _decoded([head[0][2:] for head in heads]),
        _decoded([head[1] for head in heads]),
        [message[:LONGEST_BEGINNING] for message in _decoded([_message(*head[2:]) for head in heads])],
        _downstream(reader, keys),
        keys[-1] if len(keys) == limit else 0,
    )


def _message(body: str, rest: str | None = None) -> str:
    """Return a message in JSON; if it is the end of what was read, without an escape or a quote that was cut."""
    return body if rest is not None else _CUT_ESCAPE.sub(r"\1", body.removesuffix('", ').removesuffix('"'))


def _decoded(bodies: Sequence[str]) -> list[str]:
    """Return texts from the insides of JSON strings, most of which may be equal."""
    distinct = list(dict.fromkeys(bodies))
    decoded = json.loads('["' + '","'.join(distinct) + '"]')
    if len(distinct) == len(bodies):
        return list(decoded)
    texts = dict(zip(distinct, decoded, strict=True))
    return [texts[body] for body in bodies]


def _whole(reader: Reader, key: int, head: list[str]) -> list[str]:
    """Return the head of a failure, read again if its function and type have hundreds of characters."""
    if len(head) >= 3:
        return head
    found = Failure.unpacked(reader.failures([key])[key].failure or b"")
    function, type, message = (json.dumps(text)[1:-1] for text in found[:3])
    return [f'["{function}', type, message, ""]


def _downstream(reader: Reader, keys: Sequence[int]) -> dict[int, int]:
    """Return how many nodes failed because of these, which are in order."""
    found = Counter[int]()
    for table in ("outcomes", "resolved") if keys else ():
        found.update(dict(reader.connection.execute(_DOWNSTREAM.format(table=table), (keys[0], keys[-1]))))
    return {key: found[key] for key in found.keys() & set(keys)}
