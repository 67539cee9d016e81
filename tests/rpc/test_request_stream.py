"""`Talk`: any number of submissions and waits on one stream, each answered as its own call would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.far_store import distance
from tests.support.local_calls import transport
from tests.support.raw import PATIENCE, Dag, Served, envelope, refused, serving, submit

__all__ = ["distance", "transport"]


class RawTalk:
    """A stream that is asked what the test asks, and hears what the broker answers."""

    def __init__(self, served: Served) -> None:
        self.call: Any = served.stub.Exchange()
        self._numbers = count(1)
        self._answers: dict[int, list[pb.Response]] = {}

    async def ask(self, **what: Any) -> int:
        """The number that it is asked under."""
        ask = pb.Request(**{"number": next(self._numbers), **what})
        await self.call.write(pb.Requests(request=[ask]))
        return ask.number

    async def submit(self, request: pb.SubmitRequest) -> int:
        return await self.ask(submit=request)

    async def wait(self, dag: Dag, *counters: int, now: bool = False) -> int:
        ids = [dag.id(counter) for counter in counters]
        return await self.ask(wait=pb.WaitRequest(instance=dag.instance, node=ids, now=now))

    async def hear(self, number: int) -> list[pb.Response]:
        """All answers to it, the last among them; those to others are kept."""
        async with asyncio.timeout(PATIENCE):
            while not any(answer.done for answer in self._answers.get(number, ())):
                message = await self.call.read()
                assert message is not grpc.aio.EOF, "the stream has ended"
                for answer in message.response:
                    self._answers.setdefault(answer.number, []).append(answer)
        return self._answers.pop(number)

    async def end(self) -> None:
        """The broker's last word; raises what it ended the stream with."""
        async with asyncio.timeout(PATIENCE):
            while await self.call.read() is not grpc.aio.EOF:
                pass


@asynccontextmanager
async def talking(served: Served) -> AsyncIterator[RawTalk]:
    talk = RawTalk(served)
    try:
        yield talk
    finally:
        talk.call.cancel()


def refusal(answers: list[pb.Response]) -> tuple[grpc.StatusCode, str]:
    (answer,) = answers
    assert answer.done
    status = next(code for code in grpc.StatusCode if code.value[0] == answer.refusal.status)
    return status, answer.refusal.message


def value(answers: list[pb.Response], id: bytes) -> bytes:
    """The value of a node that has completed."""
    waits = [answer.wait for answer in answers]
    assert [state for wait in waits for state in wait.state] == [pb.COMPLETED]
    found: bytes = {node: value for wait in waits for node, value in zip(wait.value_node, wait.value, strict=True)}[id]
    return found


async def test_a_submission_is_answered_when_it_is_durable_and_again_with_the_same(served: Served) -> None:
    dag = Dag()
    async with talking(served) as talk:
        for _ in range(2):
            number = await talk.submit(dag.submission(b"a"))
            assert await talk.hear(number) == [pb.Response(number=number, done=True)]
    assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]
    assert (await served.status()).nodes[pb.QUEUED] == 1


async def test_what_is_refused_is_answered_with_its_status_and_the_stream_goes_on(served: Served) -> None:
    dag = Dag()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a")))
        assert refusal(await talk.hear(await talk.submit(dag.submission(b"other")))) == (
            grpc.StatusCode.ALREADY_EXISTS,
            f"node {dag.origin.hex()}, counter 0, exists already, with other content",
        )
        assert refusal(await talk.hear(await talk.wait(Dag(), 0)))[0] is grpc.StatusCode.NOT_FOUND
        assert refusal(await talk.hear(await talk.ask(wait=pb.WaitRequest())))[0] is grpc.StatusCode.INVALID_ARGUMENT
        await talk.hear(await talk.submit(Dag().submission(b"b")))


async def test_a_submission_to_an_instance_that_has_left_memory_is_taken(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a")))
        await worker.durable(await worker.complete(await worker.node()))
        assert not served.broker.scheduler.graph.instances
        more = dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0])
        assert [answer.refusal.message for answer in await talk.hear(await talk.submit(more))] == [""]
        assert (await worker.node()).id == dag.id(1)


async def test_a_wait_is_answered_when_the_node_ends_and_holds_up_no_other_request(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a")))
        waiting = await talk.wait(dag, 0)
        await talk.hear(await talk.submit(Dag().submission(b"b")))
        await worker.complete(await worker.node(), value=b"the value")
        assert value(await talk.hear(waiting), dag.id(0)) == envelope(b"the value")
        assert value(await talk.hear(await talk.wait(dag, 0)), dag.id(0)) == envelope(b"the value")  # it has ended


async def test_a_failure_comes_with_what_is_known_of_it(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a")))
        waiting = await talk.wait(dag, 0)
        await worker.fail(await worker.node(), message="no luck")
        for number in (waiting, await talk.wait(dag, 0)):
            answers = await talk.hear(number)
            assert [state for answer in answers for state in answer.wait.state] == [pb.FAILED]
            assert [each.message for answer in answers for each in answer.wait.failure] == ["no luck"]


async def test_a_value_that_names_promises_comes_with_theirs(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a", b"b")))
        waiting = await talk.wait(dag, 0)
        await worker.complete(await worker.node(), value=b"names b", ref_count=[1], ref=[-1], foreign=[dag.id(1)])
        await worker.complete(await worker.node(), value=b"of b")
        answers = await talk.hear(waiting)
        assert value(answers, dag.id(0)) == envelope(b"names b")
        assert value(answers, dag.id(1)) == envelope(b"of b")


async def test_some_nodes_or_what_is_known_now_can_be_asked_for_as_well(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a", b"b")))
        states = [answer.wait.state for answer in await talk.hear(await talk.wait(dag, 0, 1, now=True))]
        assert sorted(state for each in states for state in each) == [pb.QUEUED, pb.CLAIMED]
        waiting = await talk.wait(dag, 0, 1)
        for _ in range(2):
            await worker.complete(await worker.node())
        assert sorted(index for answer in await talk.hear(waiting) for index in answer.wait.index) == [0, 1]


async def test_cancelled_requests_leave_nothing_behind(served: Served) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a", b"b")))
        unwanted = [await talk.wait(dag, 0), await talk.wait(dag, 0, 1)]
        wanted = await talk.wait(dag, 1)
        node = await worker.node()
        for number in unwanted:
            await talk.ask(number=number, cancel=True)
        await talk.hear(await talk.submit(Dag().submission(b"c")))
        assert node.key not in served.broker.watching
        await worker.complete(node, value=b"a")
        await worker.complete(await worker.node(), value=b"b")
        assert value(await talk.hear(wanted), dag.id(1)) == envelope(b"b")
        assert dag.instance not in served.broker.lookups.holds


@pytest.mark.parametrize("how", ["vanishes", "has no more to ask"])
async def test_a_client_that_goes_leaves_nothing_behind(served: Served, how: str) -> None:
    dag, worker = Dag(), await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a", b"b")))
        waiting = await talk.wait(dag, 0)
        node = await worker.node()
        await served.until(lambda broker: node.key in broker.watching)
        if how == "vanishes":
            talk.call.cancel()
        else:
            await talk.call.done_writing()
            await worker.complete(node, value=b"a")
            assert value(await talk.hear(waiting), dag.id(0)) == envelope(b"a")
            await talk.end()
        await served.until(lambda broker: node.key not in broker.watching and dag.instance not in broker.lookups.holds)


async def test_asks_that_make_no_sense_end_the_stream(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    async with talking(served) as talk:
        await talk.ask()
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "asks for nothing that this broker knows of"):
            await talk.end()
    async with talking(served) as talk:
        number = await talk.wait(dag, 0)
        await talk.ask(number=number, submit=Dag().submission(b"b"))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is not over yet"):
            await talk.end()


async def test_a_broker_that_leaves_tells_waiting_clients_and_ends_the_stream() -> None:
    async with serving() as served:
        dag = Dag()
        async with talking(served) as talk:
            await talk.hear(await talk.submit(dag.submission(b"a")))
            waiting = await talk.wait(dag, 0)
            await served.until(lambda broker: dag.instance in broker.lookups.holds)
            served.stop()
            assert refusal(await talk.hear(waiting)) == (
                grpc.StatusCode.UNAVAILABLE, "the broker is shutting down; wait again when it is back"
            )  # fmt: skip
            with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
                await talk.end()


async def test_each_ask_counts_as_a_call_and_the_first_as_the_stream() -> None:
    async with serving(max_streams=2) as served:
        dag = Dag()
        async with talking(served) as talk:
            await talk.hear(await talk.submit(dag.submission(b"a")))
            waiting = [await talk.wait(dag, 0) for _ in range(2)]
            answer = await talk.hear(await talk.submit(Dag().submission(b"b")))
            assert refusal(answer)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert answer[0].refusal.retry_after == 500
            await talk.ask(number=waiting[0], cancel=True)
            assert not (await talk.hear(await talk.submit(Dag().submission(b"b"))))[0].HasField("refusal")


async def test_a_client_that_does_not_read_is_not_read_from(served: Served) -> None:
    """Answers that nobody takes are not heaped up: the broker stops reading what is asked."""
    dag, large = Dag(), bytes(200_000)
    worker = await served.worker()
    async with talking(served) as talk:
        await talk.hear(await talk.submit(dag.submission(b"a")))
        await worker.durable(await worker.complete(await worker.node(), value=large))
        asked = [await talk.wait(dag, 0) for _ in range(60)]
        await asyncio.gather(*(served.status() for _ in range(20)))  # others are served
        for number in asked:
            assert value(await talk.hear(number), dag.id(0)) == envelope(large)
