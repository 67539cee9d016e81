"""Replies to Watch: the state of an instance as messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import islice

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.progress import Progress
from dagorama_broker.rpc.logs import report_message

#: Functions in one reply.
MOST_FUNCTIONS = 1_000


async def watch(broker: Broker, instance: bytes, now: bool) -> AsyncGenerator[pb.Progress, None]:
    """Yield the state of an instance whenever it has changed, until it has ended; with `now`, once. Raise NotFound."""
    if now:
        yield progress_message(await broker.progress.read(instance))
        return
    async with broker.progress.on(instance) as watched, aclosing(watched.states()) as states:
        async for progress in states:
            yield progress_message(progress)


def progress_message(progress: Progress) -> pb.Progress:
    """Return the state of an instance as a message of bounded size."""
    stored, functions, reports = progress
    return pb.Progress(
        functions=[
            pb.FunctionProgress(
                function=name,
                nodes=its.nodes,
                timed=its.timed,
                run_seconds=its.microseconds / 1_000_000,
                longest_seconds=its.longest / 1_000_000,
            )
            for name, its in islice(functions.items(), MOST_FUNCTIONS)
        ],
        ended=progress.has_ended,
        failed=stored.failed,
        definition=stored.row.definition,
        created=stored.row.created,
        ended_at=stored.ended or 0.0,
        left_out=max(0, len(functions) - MOST_FUNCTIONS),
        reports=map(report_message, reports),
    )
