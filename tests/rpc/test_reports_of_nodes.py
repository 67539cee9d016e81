"""What running nodes say about their progress: the latest of each, as long as its attempt runs."""

from __future__ import annotations

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import reports
from tests.support.raw import Dag, Given, Served, submit


def report(node: Given, message: str, fraction: float | None = None) -> pb.NodeReport:
    return pb.NodeReport(key=node.key, attempt=node.attempt, message=message, fraction=fraction, time=5.0)


async def shown(served: Served, dag: Dag, counter: int = 0) -> pb.NodeInfo:
    request = pb.GetNodeRequest(instance=dag.instance, node=dag.id(counter))
    return (await served.stub.GetNode(request)).info


async def watched(served: Served, dag: Dag) -> list[pb.NodeReport]:
    (reply,) = [each async for each in served.stub.Watch(pb.WatchRequest(instance=dag.instance, now=True))]
    return list(reply.reports)


async def test_the_latest_report_of_a_running_node_is_shown(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker(slots=2)
    first, second = await worker.nodes(2)
    assert not (await shown(served, dag)).HasField("report")
    said = [report(first, "begun"), report(second, "other", 0.25), report(first, "halfway", 0.5)]
    await worker.durable(await worker.report(pb.Results(reports=said)))
    found = (await shown(served, dag)).report
    assert (found.message, found.fraction, found.time) == ("halfway", 0.5, 5.0)
    of_all = await watched(served, dag)
    assert [(each.node, each.message) for each in of_all] == [(dag.id(0), "halfway"), (dag.id(1), "other")]
    assert {each.function for each in of_all} == {first.function.name}


async def test_a_report_goes_when_its_attempt_ends(served: Served) -> None:
    dag = Dag()
    retried = pb.Function(name="work:Task.step", hash="h", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(b"a", functions=[retried]))
    worker = await served.worker()
    first = await worker.node()
    await worker.report(pb.Results(reports=[report(first, "of the first")]))
    await worker.fail(first)
    second = await worker.node()
    assert not (await shown(served, dag)).HasField("report")
    assert await watched(served, dag) == []
    late = [report(first, "late"), report(second, "too much", 7.0)]
    await worker.durable(await worker.report(pb.Results(reports=late)))
    found = (await shown(served, dag)).report
    assert (found.message, found.HasField("fraction")) == ("too much", False)
    await worker.durable(await worker.complete(second))
    assert not (await shown(served, dag)).HasField("report")


async def test_what_is_kept_of_ended_attempts_is_dropped_now_and_then(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FEW", 10)
    served.broker.reports._tidy_at = 10
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * 100))
    worker = await served.worker()
    for _ in range(100):
        node = await worker.node()
        await worker.report(pb.Results(reports=[report(node, "here")]))
        await worker.complete(node)
    await served.until(lambda broker: not broker.scheduler.nodes)
    assert len(served.broker.reports._reports) <= 10
