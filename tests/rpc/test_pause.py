"""Pausing a queue over the wire: durable when it is answered, shown with the queues, and named as a reason."""

from __future__ import annotations

from pathlib import Path

from dagorama.api import broker_pb2 as pb
from tests.support.raw import FUNCTION, Dag, Served, serving, submit

QUEUE = FUNCTION.queue or FUNCTION.name


async def pause(served: Served, resume: bool = False) -> pb.PauseQueueReply:
    return await served.stub.PauseQueue(pb.PauseQueueRequest(queue=QUEUE, resume=resume))


async def test_a_paused_queue_is_paused_after_a_restart_until_it_is_resumed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        assert await pause(served) == pb.PauseQueueReply(changed=True)
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
    async with serving(store=store) as served:
        worker = await served.worker()
        (queue,) = (await served.status()).queues
        assert (queue.queue, queue.queued, queue.claimed, queue.paused_since > 1e9) == (QUEUE, 1, 0, True)
        request = pb.ExplainNodeRequest(instance=dag.instance, node=dag.id(0))
        (reason, *_) = (await served.stub.ExplainNode(request)).reasons
        assert reason.code == "paused"
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert f"queue {QUEUE!r} is paused" in info.stuck
        assert (await pause(served)).changed is False
        assert (await pause(served, resume=True)).changed is True
        await worker.durable(await worker.complete(await worker.node()))
        assert (await pause(served, resume=True)).changed is False


async def test_a_paused_queue_without_nodes_is_shown() -> None:
    async with serving() as served:
        await pause(served)
        (queue,) = (await served.status()).queues
        assert (queue.queue, queue.queued, bool(queue.paused_since)) == (QUEUE, 0, True)
        await pause(served, resume=True)
        assert not (await served.status()).queues
