"""Takes a worker's reports: children, results, failures, returned nodes and deaths of child processes.

A result that cannot be taken fails its node, with the reason.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import isfinite

from google.protobuf.message import DecodeError

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import BrokerRefusal, InvalidArgument
from dagorama_broker.model.looks import Known
from dagorama_broker.rpc.cache import NONE, look_up, take_cached
from dagorama_broker.rpc.children import check_functions, take_children
from dagorama_broker.rpc.failures import failure_of, reject
from dagorama_broker.rpc.fields import (
    LONGEST_NAME,
    bounded,
    check_name,
    check_references,
    check_trace,
    id_bytes,
    sha256_bytes,
)
from dagorama_broker.rpc.logs import take_logs, take_reports
from dagorama_broker.rpc.messages import split
from dagorama_broker.scheduler import NewNodes, Node, ReasonCode, Worker

#: Values that are taken between two checks whether other calls should run.
TOGETHER = 64

REASONS = {
    pb.NOT_IMPORTABLE: (ReasonCode.NOT_IMPORTABLE, "it cannot import the function"),
    pb.CODE_MISMATCH: (ReasonCode.OTHER_CODE, "it has other code (deploy the same there, or see `dagorama rebind`)"),
    pb.RESOURCE: (ReasonCode.RESOURCE, "it cannot open a resource"),
    pb.UNCHECKABLE: (ReasonCode.UNCHECKABLE, "it cannot check a signature"),
    pb.UNREGISTERED: (
        ReasonCode.NOT_REGISTERED,
        "the definition needs constructor arguments and is not registered there",
    ),
}


def read_results(report: pb.Report) -> pb.Results:
    """Return what a report says. Raises InvalidArgument, which ends the session, if it cannot be read at all."""
    try:
        return pb.Results.FromString(report.body)
    except DecodeError:
        raise InvalidArgument("a report cannot be read") from None


def is_quick(broker: Broker, results: pb.Results) -> bool:
    """Return whether results are few, and taking them awaits nothing: they name nothing that must be looked up."""
    scheduler = broker.scheduler
    if results.children or results.foreign or results.ref or not broker.store.near:
        return False
    staged = scheduler.staged_attempts
    is_few = len(results.node) + len(results.failures) <= TOGETHER
    return is_few and not (staged and any(attempt in staged for attempt in results.attempt))


async def take_results(broker: Broker, session: Session, sequence: int, results: pb.Results, turn: Turn) -> None:
    """Record what a slot reports, as number `sequence`. Raises InvalidArgument, which ends the session."""
    session.heard_last = sequence
    check_functions(results)
    if results.logs:
        take_logs(broker, session.worker, results.logs)  # before the outcomes, after which the nodes may be gone
    if results.reports:
        take_reports(broker, session.worker, results.reports)
    if results.children:
        await take_children(broker, session, results, turn)
    if results.trace:
        _take_traces(broker, results)
    hits = take_cached(broker, session.worker, results) if results.cached or results.hits else NONE
    if results.node and broker.store.near:
        await _take_values(broker, session, results, turn, broker.store, hits)
    elif results.node:
        await _look_and_take_values(broker, session, results, turn, hits)
    for failure in results.failures:
        if turn.is_over:
            await turn.next()
        _take_failure(broker, session.worker, failure)


async def _look_and_take_values(
    broker: Broker, session: Session, results: pb.Results, turn: Turn, hits: frozenset[int]
) -> None:
    blocks = _staged_blocks(broker, results)
    async with broker.loading.looks.at(blocks, map(sha256_bytes, results.large)) as stored:
        await _take_values(broker, session, results, turn, stored, hits)


async def _take_values(
    broker: Broker, session: Session, results: pb.Results, turn: Turn, stored: Known, hits: frozenset[int]
) -> None:
    scheduler, worker = broker.scheduler, session.worker
    refs, large = refs_of(results), large_by_place(results)
    foreign = list(results.foreign)
    known = await _known(broker, results, refs)
    now, staged = broker.see_time(), scheduler.staged_attempts
    columns = zip(results.node, results.attempt, results.value, results.microseconds, strict=True)
    for place, (key, attempt, value, microseconds) in enumerate(columns):
        named, promises = large.get(place, ()), refs[place] if refs else ()
        try:
            if named:
                broker.lookups.check_large(named, stored)
            if refs:
                scheduler.limits.check_promises(promises)
            children = scheduler.staged_children(attempt) if attempt in staged else None
            if children is not None:
                broker.lookups.check_names(children.blocks, stored)
            if children is None or not scheduler.limits.is_large(children.weight):
                scheduler.complete(worker, key, attempt, value, microseconds, promises, foreign, known, named, now)
            else:
                async with broker.drafts.draft(children.blocks, known, worker) as draft:
                    broker.lookups.check_names(children.blocks, stored)
                    now = broker.see_time()
                    scheduler.complete(
                        worker, key, attempt, value, microseconds, promises, foreign, known, named, now, draft
                    )
        except BrokerRefusal as refusal:
            if place in hits:
                scheduler.found_gone(worker, key, attempt)
            else:
                reject(broker, worker, key, attempt, refusal, now)
        # Loaded nodes stay valid as long as nothing is awaited.
        if not place % TOGETHER and not known and turn.is_over:
            await turn.next()
            now = broker.see_time()


def _take_traces(broker: Broker, results: pb.Results) -> None:
    """Keep the trace contexts of attempts for the nodes that use their values. Raises InvalidArgument."""
    if len(results.trace) != len(results.trace_of) or any(place >= len(results.node) for place in results.trace_of):
        raise InvalidArgument("a report's trace contexts name nodes that it does not have")
    for place, trace in zip(results.trace_of, results.trace, strict=True):
        broker.attempt_traces.keep(results.node[place], check_trace(trace))


def refs_of(results: pb.Results) -> list[Sequence[int]] | None:
    """Return the references of each completed node. Raises InvalidArgument if the columns do not fit together."""
    count = len(results.node)
    if not len(results.attempt) == len(results.value) == len(results.microseconds) == count:
        raise InvalidArgument("the columns of a report have different lengths")
    if results.ref_count and len(results.ref_count) != count:
        raise InvalidArgument("the columns of a report have different lengths")
    if len(results.large) != len(results.large_of) or any(place >= count for place in results.large_of):
        raise InvalidArgument("a report's large values name nodes that it does not have")
    for id in results.foreign:
        id_bytes(id, "a promised node")
    check_references(results.ref, results.ref_count, len(results.foreign), 1 << 32, "result")
    return split(results.ref, results.ref_count)


def large_by_place(results: pb.Results) -> dict[int, list[bytes]]:
    """Return the large values that results name, by the index of the result. Raises InvalidArgument."""
    large: dict[int, list[bytes]] = {}
    for place, sha256 in zip(results.large_of, map(sha256_bytes, results.large), strict=True):
        large.setdefault(place, []).append(sha256)
    return large


def _staged_blocks(broker: Broker, results: pb.Results) -> list[NewNodes]:
    """Return the children that the attempts of a report have staged."""
    staged = broker.scheduler.staged_attempts
    found = [broker.scheduler.staged_children(attempt) for attempt in results.attempt if attempt in staged]
    return [block for children in found if children is not None for block in children.blocks]


async def _known(broker: Broker, results: pb.Results, refs: list[Sequence[int]] | None) -> Mapping[bytes, Node]:
    """Return the nodes that a report names by ID, as sources of children or as promises in values.

    Unfinished ones are included, because they may have ended when the report is processed up to there.
    """
    blocks = [block for block in _staged_blocks(broker, results) if block.foreign]
    own = _own_promises(broker, results, refs)
    if not blocks and not results.foreign and not own:
        return {}
    foreign: Sequence[bytes] = results.foreign
    found = broker.scheduler.nodes_found(foreign) if results.hits else {}
    rest = [id for id in foreign if id not in found] if found else foreign
    if not blocks and not rest and not own:
        return found
    loaded = (await broker.loading.load(blocks, [*rest, *own])).nodes
    # A node that was found may have been removed meanwhile.
    return loaded | broker.scheduler.nodes_found(found) if found else loaded


def _own_promises(broker: Broker, results: pb.Results, refs: list[Sequence[int]] | None) -> list[bytes]:
    """Return the IDs of promises in values that are children of the same eager attempt: these may have ended before."""
    if refs is None:
        return []
    origin_of = broker.scheduler.origin_of_children
    made = [(origin_of(key), named) for key, named in zip(results.node, refs, strict=True)]
    return [origin + ref.to_bytes(4, "big") for origin, named in made if origin for ref in named if ref >= 0]


def _take_failure(broker: Broker, worker: Worker, failure: pb.Failure) -> None:
    after = failure.retry_after if failure.HasField("retry_after") else None
    broker.scheduler.fail(
        worker,
        failure.node,
        failure.attempt,
        failure_of(failure, broker.scheduler.limits.longest_traceback),
        broker.see_time(),
        random.random(),
        failure.microseconds,
        final=failure.final,
        after=after if after is None or isfinite(after) else None,
        pause_key=failure.pause_key,
    )


def take_return(broker: Broker, worker: Worker, returned: pb.Return) -> None:
    """Take nodes that come back without an outcome. Raises InvalidArgument if the columns differ."""
    nodes: Sequence[int] = returned.node
    if len(nodes) != len(returned.attempt):
        raise InvalidArgument("the columns of a return have different lengths")
    if returned.reason == pb.VALUES:
        _put_off(broker, worker, returned)
        return
    if returned.reason == pb.CACHE_KEY:
        look_up(broker, worker, returned)
        return
    code, why = REASONS.get(returned.reason, (ReasonCode.RETURNED, ""))
    if why and returned.detail:
        why = f"{why}: {bounded(returned.detail, LONGEST_NAME)}"
    deployed = returned.hash if returned.reason == pb.CODE_MISMATCH else ""
    check_name(deployed, "the hash of a function")
    now = broker.see_time()
    for key, attempt in zip(nodes, returned.attempt, strict=True):
        broker.scheduler.give_back(worker, key, attempt, why, now, deployed, code)
    if why:
        broker.returned()


def _put_off(broker: Broker, worker: Worker, returned: pb.Return) -> None:
    """Take nodes back whose large values cannot be fetched or stored at the moment."""
    broker.see_time()
    for key, attempt in zip(returned.node, returned.attempt, strict=True):
        broker.scheduler.put_off(worker, key, attempt, bounded(returned.detail, LONGEST_NAME))


def take_death(broker: Broker, worker: Worker, death: pb.SlotDeath) -> None:
    """Record that a child process ended by itself."""
    cause = bounded(death.cause, LONGEST_NAME)
    broker.scheduler.died(worker, death.running, death.unstarted, cause, broker.see_time())
