"""A worker's report, read into the heart's verbs. A result that cannot be taken fails its node, saying why."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import isfinite

from google.protobuf.message import DecodeError

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.deduplication import refuse_made
from dagorama_broker.engine.drafts import drafted, is_many
from dagorama_broker.engine.loading import reach, refuse_other_world
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import BrokerRefusal, Malformed, NotKnown
from dagorama_broker.model import Failure
from dagorama_broker.rpc.costs import of_children
from dagorama_broker.rpc.messages import (
    LONGEST_NAME,
    bounded,
    check_name,
    failure_of,
    lanes_of,
    large_by_place,
    refs_of,
    run_of,
)
from dagorama_broker.scheduler import NewRun, Node, Worker
from dagorama_broker.scheduler.queues import Lane

#: Functions that one report may name.
MOST_FUNCTIONS = 10_000
#: Values that are taken between two looks whether others should have a turn.
TOGETHER = 64

REASONS = {
    pb.NOT_IMPORTABLE: "it cannot import the function",
    pb.CODE_MISMATCH: "it has other code (deploy the same there, or see `dagorama adopt`)",
    pb.UNCHECKABLE: "it cannot check a signature",
    pb.UNREGISTERED: "the definition needs constructor arguments and is not registered there",
}


async def take_report(broker: Broker, session: Session, report: pb.Report) -> None:
    """Record what a slot reports. Raises Malformed, which ends the session, where it cannot be read at all."""
    try:
        results = pb.Results.FromString(report.body)
    except DecodeError:
        raise Malformed("a report cannot be read") from None
    session.heard_last = report.sequence
    if len(results.functions) > MOST_FUNCTIONS:
        raise Malformed(f"a report names {len(results.functions)} functions; {MOST_FUNCTIONS:,} are allowed")
    turn = Turn()
    lanes = lanes_of(broker.scheduler, results.functions)
    for children in results.children:
        node = broker.scheduler.dispatch.held(session.worker, children.node, children.attempt)
        if node is not None and node.lane.function.eager:
            await _make(broker, session, children, lanes)
        else:
            _stage(broker, session, children, lanes)
        if turn.is_over:
            await turn.next()
    if results.node:
        await _take_values(broker, session, results, turn)
    for failure in results.failures:
        if turn.is_over:
            await turn.next()
        now, jitter = broker.see_time(), random.random()
        after = failure.retry_after if failure.HasField("retry_after") else None
        broker.scheduler.fail(
            session.worker, failure.node, failure.attempt,
            failure_of(failure, broker.scheduler.limits.longest_traceback), now, jitter, final=failure.final,
            after=after if after is None or isfinite(after) else None,
        )


def _stage(broker: Broker, session: Session, children: pb.Children, lanes: Sequence[Lane]) -> None:
    """Keep children until their parent's outcome comes; what cannot be kept fails the parent."""
    key, attempt = children.node, children.attempt
    if not broker.scheduler.may_stage(session.worker, key, attempt, of_children(children.nodes)):
        return  # the refusal of its result will say why
    run = run_of(broker.scheduler, children.nodes, lanes)
    try:
        if not broker.scheduler.stage(session.worker, key, attempt, run):
            broker.scheduler.refuse(session.worker, attempt)
            return
        _refuse_unkept(broker, run.large)
        refuse_made(broker, run)
    except BrokerRefusal as refusal:
        _fail(broker, session.worker, key, attempt, refusal, broker.see_time())
    else:
        session.staged_since.setdefault(attempt, session.heard_last)


async def _make(broker: Broker, session: Session, children: pb.Children, lanes: Sequence[Lane]) -> None:
    """Children of an eager function are there with the next commit; what cannot be made fails the parent."""
    run = run_of(broker.scheduler, children.nodes, lanes)
    key, attempt, graph = children.node, children.attempt, broker.scheduler.graph
    found = await reach(broker, [run])
    now = broker.see_time()
    for id, stored in found.instances.items():
        graph.recall(stored.row.key, id, stored.failed)
    try:
        refuse_other_world([run], found)
        _refuse_unkept(broker, run.large)
        if not broker.scheduler.broods.has_made(key, run):  # a report that is said again
            refuse_made(broker, run)
        if not broker.scheduler.make(session.worker, key, attempt, run, found.nodes):
            broker.scheduler.refuse(session.worker, attempt)
    except BrokerRefusal as refusal:
        _fail(broker, session.worker, key, attempt, refusal, now)
    finally:
        graph.forget_idle(found.instances)


async def _take_values(broker: Broker, session: Session, results: pb.Results, turn: Turn) -> None:
    scheduler, worker = broker.scheduler, session.worker
    refs, large = refs_of(results), large_by_place(results)
    foreign = list(results.foreign)
    known = await _known(broker, results, refs)
    now = broker.see_time()
    columns = zip(results.node, results.attempt, results.value, results.microseconds, strict=True)
    for place, (key, attempt, value, microseconds) in enumerate(columns):
        named = large.get(place, ())
        complete = partial(
            scheduler.complete, worker, key, attempt, value, microseconds, refs[place] if refs else (), foreign, known,
            named,
        )
        try:
            _refuse_unkept(broker, named)
            if refs:
                scheduler.limits.check_promises(refs[place])
            staged = scheduler.staged.get(attempt)
            if staged is None or not is_many(broker, staged.weight):
                complete(now)
            else:
                async with drafted(broker, staged.runs, known, worker) as draft:
                    complete(now := broker.see_time(), draft)
        except BrokerRefusal as refusal:
            _fail(broker, worker, key, attempt, refusal, now)
        # What was found outside of memory holds as long as nothing is awaited.
        if not place % TOGETHER and not known and turn.is_over:
            await turn.next()
            now = broker.see_time()


def _refuse_unkept(broker: Broker, large: Iterable[bytes]) -> None:
    for sha256 in large:
        if not broker.store.has_large(sha256):
            raise NotKnown(f"its large value {sha256.hex()} did not arrive")


async def _known(
    broker: Broker, results: pb.Results, refs: list[Sequence[int]] | None
) -> Mapping[bytes, Node]:
    """Nodes that a report names by id: as sources of children or as promises in values.

    Those that live are among them, for they may have ended when their turn comes within the report.
    """
    runs: list[NewRun] = [
        run
        for attempt in results.attempt
        if (staged := broker.scheduler.staged.get(attempt)) is not None
        for run in staged.runs
        if run.foreign
    ]
    own = _own_promises(broker, results, refs)
    if not runs and not results.foreign and not own:
        return {}
    return (await reach(broker, runs, [*results.foreign, *own])).nodes


def _own_promises(broker: Broker, results: pb.Results, refs: list[Sequence[int]] | None) -> list[bytes]:
    """Ids of the promises in values of eager attempts that are of their own making: these may have ended before."""
    if refs is None:
        return []
    made = [(broker.scheduler.broods.origin_of(key), named) for key, named in zip(results.node, refs, strict=True)]
    return [origin + ref.to_bytes(4, "big") for origin, named in made if origin for ref in named if ref >= 0]


def _fail(broker: Broker, worker: Worker, key: int, attempt: int, why: BrokerRefusal, now: float) -> None:
    failure = Failure("", "dagorama.errors.ResultRejected", f"its result could not be taken: {why}", "", b"", 0)
    broker.scheduler.fail(worker, key, attempt, failure, now, 0.0)


def take_return(broker: Broker, worker: Worker, returned: pb.Return) -> None:
    """Nodes come back without an outcome. Raises Malformed where the columns differ."""
    nodes: Sequence[int] = returned.node
    if len(nodes) != len(returned.attempt):
        raise Malformed("the columns of a return have different lengths")
    why = REASONS.get(returned.reason, "")
    if why and returned.detail:
        why = f"{why}: {bounded(returned.detail, LONGEST_NAME)}"
    deployed = returned.hash if returned.reason == pb.CODE_MISMATCH else ""
    check_name(deployed, "the hash of a function")
    now = broker.see_time()
    for key, attempt in zip(nodes, returned.attempt, strict=True):
        broker.scheduler.give_back(worker, key, attempt, why, now, deployed)
    if why:
        broker.returned()


def take_death(broker: Broker, worker: Worker, death: pb.SlotDeath) -> None:
    """A child process ended by itself."""
    cause = bounded(death.cause, LONGEST_NAME)
    broker.scheduler.died(worker, death.running, death.unstarted, cause, broker.see_time())
