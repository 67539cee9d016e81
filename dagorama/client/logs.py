"""Read what nodes have printed and logged: `logs(instance)`, also while they run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from math import isfinite
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError

from dagorama.api import broker_pb2
from dagorama.client.connection import Connection, connection
from dagorama.client.following import Following
from dagorama.client.waiter import check_instance, owner_of
from dagorama.context import is_held_back
from dagorama.errors import PromiseMisuse
from dagorama.models.log_record import LEFT_OUT, STREAMS, LogRecord
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.texts import check_characters

#: Parts that are fetched at once.
PAGE = 64
_HIGHEST_ATTEMPT = 2**32 - 1


class Logs(Following[LogRecord]):
    """Log records in the order in which they reached the broker; iterate over it with `for` or `async for`."""

    def __init__(self, broker: Connection, request: broker_pb2.GetLogsRequest) -> None:
        super().__init__(broker, request.instance)
        self._request = request
        self._is_live = False  # all that was there is read, and new parts are followed

    def _opened(self) -> Any:
        # Parts that are there already come in pages, because the broker cuts off a reader that takes long for one part.
        page = broker_pb2.GetLogsRequest(limit=0 if self._is_live else PAGE)
        page.MergeFrom(self._request)
        page.follow = self._is_live
        return self._broker.stub.GetLogs(page)

    def _items(self, call: Any) -> Generator[LogRecord, None, bool]:
        pieces = call if self._is_live else list(call)
        count = 0
        for count, piece in enumerate(pieces, 1):  # noqa: B007 - the last number is used
            yield from records_of(piece, self._request.since)
            self._request.after = piece.id
        is_page_full = not self._is_live and count == PAGE
        was_live, self._is_live = self._is_live, self._is_live or (self._request.follow and not is_page_full)
        return was_live or not (is_page_full or self._request.follow)


def logs(
    instance: InstanceRef,
    promise: DAGPromise[Any] | None = None,
    *,
    attempt: int = 0,
    function: str = "",
    since: float = 0.0,
    follow: bool = False,
) -> Logs:
    """Return what the nodes of an instance, or the node of a promise, have printed and logged.

    Iterate over it with `for` or `async for`; each item is a `LogRecord`. `attempt` is a number from 1, 0 means all;
    `function` is a name like "package.module:Class.method"; `since` is in seconds since 1970. With `follow`, records
    of running nodes come within two seconds, until the node or the instance has ended. Raises NotFound if there is no
    such instance or node, AccessDenied if the token does not allow logs, and BrokerUnavailable.
    """
    check_instance("logs()", instance)
    if is_held_back(instance.instance_id.bytes):
        raise PromiseMisuse(f"{instance!r} was made in a `with batch():` block: read its logs after the block")
    _check_filters(attempt, function, since)
    owner = instance.instance_id.bytes if promise is None else owner_of(instance, promise)
    request = broker_pb2.GetLogsRequest(
        instance=owner,
        node=b"" if promise is None else promise.node_id,
        attempt=attempt,
        function=function,
        since=since,
        follow=follow,
    )
    return Logs(connection(), request)


def _check_filters(attempt: object, function: object, since: object) -> None:
    if not isinstance(attempt, int) or not 0 <= attempt <= _HIGHEST_ATTEMPT:
        raise ValueError(f"attempt is {attempt!r}: it must be the number of an attempt, from 1, or 0 for all")
    if not isinstance(function, str):
        raise TypeError(f'function is {function!r}: it must be a name like "package.module:Class.method"')
    check_characters(function, "function")
    if not isinstance(since, int | float) or not isfinite(since):
        raise ValueError(f"since is {since!r}: it must be a number of seconds since 1970")


def records_of(piece: broker_pb2.LogPiece, since: float = 0.0) -> Iterator[LogRecord]:
    """Return the records of a part of a log that are not older than `since`, in seconds since 1970."""
    node = UUID(bytes=piece.node)
    if piece.left_out:
        yield LogRecord(node, piece.function, piece.attempt, 0.0, LEFT_OUT, left_out=piece.left_out)
    try:
        found = broker_pb2.LogRecords.FromString(piece.records)
    except DecodeError:  # the broker keeps what a worker sends as it is
        text = b"a part of the log cannot be read: its worker has sent something else"
        yield LogRecord(node, piece.function, piece.attempt, 0.0, "stderr", text)
        return
    for record in found.record:
        if (time := record.time / 1_000_000) >= since:
            stream = STREAMS[record.source] if record.source < len(STREAMS) else f"stream {record.source}"
            yield LogRecord(
                node, piece.function, piece.attempt, time, stream, record.text, record.cut, record.level, record.logger
            )
