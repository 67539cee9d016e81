"""Replies to ExplainNode: why a node is not running, or how it ended, and what it waits for in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.firings import fired_by
from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.queries import FoundNode, StoredInstance
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.rpc.failures import headline
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded
from dagorama_broker.scheduler import Cause, Causes, Node, Reason, ReasonCode

_WAITS = (State.WAITING, State.RESOLVING)


async def explain_node(broker: Broker, instance: bytes, id: bytes) -> pb.Explanation:
    """Return why a node, or each unfinished node of an instance, has not ended. Raise NotFound or InvalidArgument."""
    with broker.lookups.holds.on(instance):
        if not id:
            return await _instance(broker, await broker.lookups.stored_instance(instance))
        found = await broker.lookups.find_node(instance, id)
        while True:
            node = broker.scheduler.nodes.get(found.key)
            if node is not None:
                return _unfinished(broker, id, node)
            outcome = await broker.lookups.outcome(found.key)
            if outcome is not None and outcome.state != State.RESOLVING:
                return await _ended(broker, found, outcome)
            await broker.commits.wait_durable()  # it has ended since


async def _instance(broker: Broker, stored: StoredInstance) -> pb.Explanation:
    row = stored.row
    marks = (await broker.commits.in_view(broker.store.view.marks, [row.key])).get(row.key)
    fired = fired_by(row.definition, marks.name, row.id) if marks is not None else None
    schedule, time = fired or ("", "")
    causes = broker.scheduler.causes_of(broker.scheduler.unfinished_of(row.id))
    return pb.Explanation(schedule=schedule, scheduled_for=time, **_causes(broker, causes))


async def _ended(broker: Broker, node: FoundNode, outcome: OutcomeRow) -> pb.Explanation:
    return pb.Explanation(
        node=node.id,
        function=broker.scheduler.function_queues[node.function].function.name,
        state=pb.NodeState.ValueType(outcome.state),
        reasons=[await _end(broker, outcome)],
        since=outcome.ended,
    )


def _unfinished(broker: Broker, id: bytes, node: Node) -> pb.Explanation:
    scheduler = broker.scheduler
    waits_for_nodes = node.state in _WAITS and node.wait is None
    return pb.Explanation(
        node=id,
        function=node.queue.function.name,
        state=pb.NodeState.ValueType(node.state),
        reasons=_reasons(broker, node, scheduler.reasons_of(node)),
        since=scheduler.running_since(node),
        **(_causes(broker, scheduler.causes_of([node])) if waits_for_nodes else {}),
    )


def _causes(broker: Broker, causes: Causes) -> dict[str, Any]:
    """Return the fields of an explanation that tell what nodes ultimately wait for."""
    return {
        "causes": [_cause(broker, cause) for cause in causes.largest],
        "left_out": causes.left_out,
        "more": not causes.complete,
    }


def _cause(broker: Broker, cause: Cause) -> pb.Cause:
    node = cause.node
    return pb.Cause(
        node=_id(node),
        function=node.queue.function.name,
        state=pb.NodeState.ValueType(node.state),
        nodes=cause.nodes,
        reasons=_reasons(broker, node, cause.reasons),
    )


def _reasons(broker: Broker, node: Node, reasons: Iterable[Reason]) -> list[pb.Reason]:
    report = broker.reports.of_node(node)
    # Such as the large value that its worker cannot fetch.
    says = f"; it says: {report.message}" if report is not None and report.message else ""
    return [
        pb.Reason(
            code=reason.code,
            text=bounded(f"{reason.text}{says}", LONGEST_REASON),
            about=reason.about,
            node=[_id(node) for node in reason.nodes],
            until=reason.until + broker.scheduler.wall if reason.until else 0.0,
        )
        for reason in reasons
    ]


def _id(node: Node) -> bytes:
    assert node.block is not None, "an unfinished node has a block"
    return node.block.id_of(node.key)


async def _end(broker: Broker, outcome: OutcomeRow) -> pb.Reason:
    """Return how a node has ended, as a reason why it is not running."""
    if outcome.state == State.COMPLETED:
        return pb.Reason(code=ReasonCode.COMPLETED, text="it has completed")
    if outcome.root_cause not in (0, outcome.key):
        cause = await broker.lookups.outcome(outcome.root_cause)
        ids = await broker.commits.in_view(broker.store.view.ids, [outcome.root_cause])
        text = f"a node that it depends on {_how(cause)}"
        return pb.Reason(code=ReasonCode.FAILED_SOURCE, text=text, about=1, node=list(ids.values()))
    code = ReasonCode.CANCELLED if outcome.state == State.CANCELLED else ReasonCode.FAILED
    return pb.Reason(code=code, text=f"it {_how(outcome)}")


def _how(outcome: OutcomeRow | None) -> str:
    if outcome is None or outcome.state not in (State.FAILED, State.CANCELLED):
        return "had failed, and has been retried since"
    if outcome.failure is None:
        return "was cancelled" if outcome.state == State.CANCELLED else "failed"
    failure = Failure.unpacked(outcome.failure)
    said = headline(failure)
    tried = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
    how = "was cancelled" if outcome.state == State.CANCELLED else f"failed after {tried}"
    return bounded(f"{how}: {said}" if said else how, LONGEST_REASON)
