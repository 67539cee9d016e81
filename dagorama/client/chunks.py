"""Requests and replies that are cut into messages: chunks of large values, submissions, pages of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dagorama.api import broker_pb2
from dagorama.api.contract import CHUNK
from dagorama.errors import RequestRejected

T = TypeVar("T")

#: The largest value in bytes; a larger one is refused before anything is sent.
VALUE_LIMIT = 1024**3
#: Seconds that an ordinary call may take.
DEADLINE = 30.0
#: Seconds that a transfer may take for each MiB, in addition to the deadline.
SECONDS_PER_MIB = 1.0
#: The largest number of instances or nodes in one message of a list.
PAGE = 1000


def refuse_excess(size: int) -> None:
    """Raise RequestRejected if a value of `size` bytes is larger than a broker accepts."""
    if size > VALUE_LIMIT:
        raise RequestRejected(
            f"a value of {size:,} bytes is more than dagorama carries ({VALUE_LIMIT:,}); "
            "split it, or pass the name of a file that the node can read",
            "INVALID_ARGUMENT",
        )


def transfer_deadline(size: int) -> float:
    """Return the seconds that a call may take that carries `size` bytes."""
    return DEADLINE + SECONDS_PER_MIB * size / 1024**2


def value_chunks(data: bytes | bytearray | memoryview) -> Iterator[broker_pb2.ValueChunk]:
    """Yield the messages of one large value."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK):
        yield broker_pb2.ValueChunk(data=bytes(view[start : start + CHUNK]))


def whole_submission(requests: Sequence[broker_pb2.SubmitRequest]) -> Iterator[broker_pb2.SubmitRequest]:
    """Yield the requests and an empty one, which tells the broker that none is missing."""
    yield from requests
    yield broker_pb2.SubmitRequest()


def node_fields(owners: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the fields of a request that names nodes of one or several instances; `owners` maps node to instance."""
    instances = {instance: index for index, instance in enumerate(dict.fromkeys(owners.values()))}
    if len(instances) == 1:
        return {"instance": next(iter(instances)), "node": owners}
    return {"node": owners, "instances": instances, "instance_of": [instances[owner] for owner in owners.values()]}


def all_pages(page: Callable[[int, int], tuple[Sequence[T], int]], limit: int) -> list[T]:
    """Return the rows of all pages, at most `limit`; 0 means no limit.

    `page(size, position)` returns rows and the position at which the next page begins, 0 after the last one.
    """
    found: list[T] = []
    position = 0
    while True:
        rows, position = page(min(limit - len(found), PAGE) if limit else PAGE, position)
        found += rows
        if not position or len(found) == limit:
            return found


def all_counted_pages(page: Callable[[int, int], tuple[Sequence[T], int, int]], limit: int) -> tuple[list[T], int]:
    """Return what `all_pages` returns, and the number of rows that the broker has; 0: it does not know.

    `page(size, position)` also returns that number. The first page counts, because rows may be added meanwhile.
    """
    total = 0

    def uncounted(size: int, position: int) -> tuple[Sequence[T], int]:
        nonlocal total
        rows, following, counted = page(size, position)
        total = total or counted
        return rows, following

    return all_pages(uncounted, limit), total
