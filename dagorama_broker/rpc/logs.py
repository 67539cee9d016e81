"""Logs and reports of running nodes: takes them from workers, and answers GetLogs. Records are never read here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.engine.reports import NodeReport, owner_of
from dagorama_broker.errors import Unavailable
from dagorama_broker.model.logs import KeptPart, LogOwner, LogPart, LogQuery
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded, check_name, id_bytes
from dagorama_broker.scheduler import Worker

#: Bytes of records in one part; more are counted as left out.
LARGEST_PART = 256 << 10
#: Seconds after which a follower looks whether the instance has ended, if nothing is printed.
LOOK = 0.5
#: The largest time, number or count that is kept.
_MOST = (1 << 63) - 1


def take_logs(broker: Broker, worker: Worker, logs: Iterable[pb.NodeLog]) -> None:
    """Take parts of logs of attempts that this worker holds, or that were cancelled; others are dropped."""
    for part in logs:
        node = broker.scheduler.held(worker, part.node, part.attempt)
        owner = owner_of(node) if node is not None else broker.logs.owner_of_cancelled(part.attempt)
        if owner is not None and part.attempt <= _MOST:
            taken = _part(owner, part)
            if not part.number and node is not None:  # a supervisor does not know it
                failed = node.failures.failed_attempts if node.failures is not None else 0
                taken = taken._replace(number=failed + 1)
            broker.logs.take(taken)


def _part(owner: LogOwner, part: pb.NodeLog) -> LogPart:
    left_out, first, last, size = (min(number, _MOST) for number in (part.left_out, part.first, part.last, part.size))
    taken = LogPart(
        owner, part.attempt, part.number, part.sequence, part.head, left_out, first, last, size, part.records
    )
    return taken if len(part.records) <= LARGEST_PART else taken.lost


def take_reports(broker: Broker, worker: Worker, reports: Iterable[pb.NodeReport]) -> None:
    """Take what running nodes of this worker say about their progress."""
    for report in reports:
        node = broker.scheduler.held(worker, report.key, report.attempt)
        if node is not None:
            fraction = report.fraction if report.HasField("fraction") and 0 <= report.fraction <= 1 else None
            broker.reports.take(node, bounded(report.message, LONGEST_REASON), fraction, report.time)


def report_message(report: NodeReport) -> pb.NodeReport:
    """Return what a node has reported."""
    owner = report.owner
    return pb.NodeReport(
        node=owner.node,
        function=owner.function,
        message=report.message,
        fraction=report.fraction,
        time=report.time,
    )


async def get_logs(broker: Broker, request: pb.GetLogsRequest) -> AsyncGenerator[pb.LogPiece, None]:
    """Yield the logs of an instance or a node; to follow it, until it has ended. Raises a BrokerRefusal."""
    instance = id_bytes(request.instance, "an instance")
    node = id_bytes(request.node, "a node") if request.node else b""
    check_name(request.function, "the name of a function")
    asked = LogQuery(instance, node, request.attempt, request.function, _microseconds(request.since))
    with broker.lookups.holds.on(instance):
        if node:
            await broker.lookups.find_node(instance, node)
        else:
            await broker.lookups.stored_instance(instance)
        async with aclosing(_parts(broker, asked, min(request.after, _MOST), request.follow)) as parts:
            count = 0
            async for part in parts:
                yield _piece(part)
                count += 1
                if count == request.limit:
                    return


async def _parts(broker: Broker, asked: LogQuery, after: int, follow: bool) -> AsyncGenerator[KeptPart, None]:
    with broker.logs.following(asked.instance) as news, broker.until_leaving(news.set):
        has_news = True
        while True:
            is_over = not follow or _has_ended(broker, asked)
            if is_over or has_news:
                news.clear()
                await broker.logs.written()  # all that was printed before
                async with aclosing(broker.logs.read(asked, after)) as parts:
                    async for part in parts:
                        yield part
                        after = part.id
            if is_over:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await news.wait()
            has_news = news.is_set()
            if broker.is_leaving:
                raise Unavailable(CALL_AGAIN)


def _has_ended(broker: Broker, asked: LogQuery) -> bool:
    if asked.node:
        return broker.scheduler.node(asked.node) is None
    return broker.scheduler.instance(asked.instance) is None


def _microseconds(seconds: float) -> int:
    return int(min(max(seconds, 0.0), 1e12) * 1_000_000) if seconds == seconds else 0


def _piece(part: KeptPart) -> pb.LogPiece:
    return pb.LogPiece(
        node=part.node,
        function=part.function,
        attempt=part.number,
        left_out=part.left_out,
        records=part.records,
        id=part.id,
    )
