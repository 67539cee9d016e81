"""GetStatus: its lists come in pages, each of which fits a message."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from tests.support.raw import FUNCTION, Dag, Served, submit

KEYS, FUNCTIONS = 5_000, 2_500
MESSAGE = 4 << 20


async def test_a_function_is_one_entry_however_many_concurrency_keys_are_queued(served: Served) -> None:
    limited = pb.Function(name="work:Task.limited", hash="h", max_concurrency=1)
    keys = [f"customer-{number}" for number in range(KEYS)]
    await submit(served.stub, Dag().submission(*[b"a"] * KEYS, functions=[limited], keys=keys, key=range(1, KEYS + 1)))
    status = await served.status()
    assert [(each.function.name, each.queued) for each in status.unschedulable] == [(limited.name, KEYS)]
    assert [(each.queue, each.queued) for each in status.queues] == [(limited.name, KEYS)]
    assert not status.more


async def test_the_pages_have_each_function_and_queue_once(served: Served) -> None:
    for start in range(0, FUNCTIONS, 500):
        functions = [
            pb.Function(name=f"work:Task.f{number:05}", hash="h" * 3_000) for number in range(start, start + 500)
        ]
        await submit(served.stub, Dag().submission(*[b"a"] * 500, functions=functions, function=list(range(500))))
    names, queues, request = [], [], pb.GetStatusRequest()
    while True:
        status = await served.stub.GetStatus(request)
        assert status.ByteSize() < MESSAGE
        names += [each.function.name for each in status.unschedulable]
        queues += [each.queue for each in status.queues]
        if not status.more:
            break
        request = pb.GetStatusRequest(
            after_worker=status.last_worker, after_function=status.last_function, after_queue=status.last_queue
        )
    assert sorted(names) == sorted(queues) == [f"work:Task.f{number:05}" for number in range(FUNCTIONS)]


async def test_limits_come_with_the_first_page_and_fit_it(served: Served) -> None:
    for start in range(0, 600, 100):
        limits = [pb.SharedLimit(name=f"{number:03}{'n' * 4_000}", max_concurrency=1) for number in range(100)]
        functions = [
            pb.Function(name=f"work:Task.f{start + number}", hash="h", limit=limit)
            for number, limit in enumerate(limits)
        ]
        await submit(served.stub, Dag().submission(*[b"a"] * 100, functions=functions, function=list(range(100))))
    status = await served.stub.GetStatus(pb.GetStatusRequest())
    assert 10 < len(status.limits) < 100
    assert status.ByteSize() < MESSAGE
    assert [limit.queued for limit in status.limits] == [6] * len(status.limits)
    assert not (await served.stub.GetStatus(pb.GetStatusRequest(after_queue="work"))).limits


async def test_running_nodes_are_named_as_far_as_they_are_asked_for(served: Served) -> None:
    dag = Dag()
    worker = await served.worker(slots=2)
    await submit(served.stub, dag.submission(b"a", b"b", b"c"))
    await worker.node()
    await worker.node()
    (info,) = (await served.status()).workers
    assert not info.running
    (info,) = (await served.stub.GetStatus(pb.GetStatusRequest(running=1))).workers
    assert len(info.running) == 1
    (info,) = (await served.stub.GetStatus(pb.GetStatusRequest(running=9))).workers
    assert [(each.name.instance, each.name.ordinal, each.function) for each in info.running] == [
        (dag.instance, ordinal, FUNCTION.name) for ordinal in (1, 2)
    ]
    assert all(each.started > 1_600_000_000 for each in info.running)
