"""A store that is not near is asked once for many submissions, and its answer is true until they are decided."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.looks import Look
from dagorama_broker.model.looks import Seen, Wanted
from dagorama_broker.model.rows import Changes, NameRow, RemovedRow
from dagorama_broker.scheduler import name_key
from tests.support.far_store import FarStore, distance
from tests.support.raw import LEAF, Dag, Served, envelope, refused, serving, submit
from tests.support.records import ORIGIN, graph, instance_row, node, run_row

__all__ = ["distance"]
pytestmark = pytest.mark.parametrize("distance", ["asked"], indirect=True)

ID, OTHER = instance_row().id, b"another instance"
NAME = ("work:Plain", "order-1")


def look(**seen: Any) -> Look:
    made = Look(Wanted({ID, OTHER}, {(ORIGIN, 8)}, {NAME}, {b"sha256"}))
    made.answer(Seen(**seen))
    return made


def noted(look: Look, changes: Changes, *made: bytes) -> Look:
    look.note(changes, set(made))
    return look


# --- an answer stays true ------------------------------------------------------------------------------


def test_what_is_committed_after_the_question_is_part_of_the_answer() -> None:
    found = noted(look(), graph(node(1), node(2)), ID, ORIGIN)
    assert found.has_instance(ID)
    assert not found.has_instance(OTHER)
    assert not found.is_new(OTHER, ORIGIN)
    assert found.last_block(ORIGIN, 8) == graph(node(1), node(2)).blocks[0]


def test_what_was_committed_before_the_answer_came_is_not_lost_by_the_answer() -> None:
    found = Look(Wanted({ID}, {(ORIGIN, 8)}, {NAME}))
    name = NameRow(1, *NAME, b"digest")
    found.note(graph(node(1)), {ID, ORIGIN})
    found.note(Changes(names=[name]), {name_key(*NAME)})
    found.answer(Seen())
    assert found.has_instance(ID)
    assert found.named_instance(*NAME) == name
    assert found.last_block(ORIGIN, 8) is not None


def test_the_last_block_before_a_counter_is_found_in_both() -> None:
    stored, younger, beyond = run_row(0, 2, 1), run_row(2, 2, 3), run_row(8, 1, 9)
    found = look(origins={ORIGIN}, blocks={(ORIGIN, 8): stored})
    assert found.last_block(ORIGIN, 8) == stored
    noted(found, Changes(blocks=[younger, beyond]), ORIGIN)
    assert found.last_block(ORIGIN, 8) == younger


def test_an_instance_that_is_removed_after_the_question_is_known_as_removed() -> None:
    row = RemovedRow(1, ID, 5.5, False, 60.0)
    found = noted(look(instances={ID}), Changes(removed=[row]))
    assert found.removed(ID) == row
    assert found.has_instance(ID)


def test_a_look_does_not_answer_what_the_store_was_not_asked_for() -> None:
    found = look()
    for ask in (
        lambda: found.has_instance(b"unasked"), lambda: found.removed(b"unasked"), lambda: found.has_large(b"unasked"),
        lambda: found.last_block(ORIGIN, 9), lambda: found.named_instance("work:Plain", "order-2"),
        lambda: found.is_new(ID, b"unasked"),
    ):  # fmt: skip
        with pytest.raises(LookupError):
            ask()


# --- one question for many -----------------------------------------------------------------------------


def far_store(served: Served) -> FarStore:
    return cast("FarStore", served.broker.store)


def held(served: Served, method: str) -> tuple[threading.Event, threading.Event]:
    """Let the store stop in this method until the second event is set; the first one is set when it has stopped."""
    entered, gate, call = threading.Event(), threading.Event(), getattr(far_store(served), method)

    def slowly(*asked: Any) -> Any:
        found = call(*asked)
        entered.set()
        gate.wait()
        return found

    setattr(served.broker.store, method, slowly)
    return entered, gate


async def test_submissions_that_gather_while_the_store_answers_share_the_next_question() -> None:
    async with serving() as served:
        entered, gate = held(served, "look")
        first = asyncio.create_task(submit(served.stub, Dag().submission(b"a")))
        await asyncio.to_thread(entered.wait)
        others = [asyncio.create_task(submit(served.stub, Dag().submission(b"a"))) for _ in range(20)]
        await served.until(lambda broker: len(broker.loading.looks.under_way) == 21)
        gate.set()
        await asyncio.gather(first, *others)
        assert far_store(served).looks == 2
        assert sum((await served.status()).nodes) == 21
        assert not served.broker.loading.looks.under_way
        assert not served.broker.commits.observers


async def test_a_question_does_not_wait_for_a_commit_that_is_under_way() -> None:
    async with serving() as served:
        committing, committed = held(served, "commit")
        first = asyncio.create_task(submit(served.stub, Dag().submission(b"a")))
        await asyncio.to_thread(committing.wait)
        asked, answered = held(served, "look")
        second = asyncio.create_task(submit(served.stub, Dag().submission(b"a")))
        await asyncio.to_thread(asked.wait)
        assert not first.done()
        answered.set()
        committed.set()
        await asyncio.gather(first, second)


async def test_a_submission_that_is_made_by_another_call_after_its_look_is_not_made_twice() -> None:
    """When the first call decides, the node has run and left memory, and its look said that it is new."""
    async with serving() as served:
        worker = await served.worker()
        dag = Dag()
        await submit(served.stub, dag.submission(b"s", functions=[LEAF]))
        await worker.durable(await worker.complete(await worker.node(), value=b"source"))
        await served.until(lambda broker: broker.scheduler.node(dag.id(0)) is None)
        more: dict[str, Any] = {"first": 1, "creates": False, "source_count": [1], "source": [0], "functions": [LEAF]}
        request = dag.submission(b"a", **more)
        looked, gate, read = asyncio.Event(), asyncio.Event(), served.broker.loading.read

        async def read_late(*asked: Any) -> None:
            if not looked.is_set():
                looked.set()
                await gate.wait()
            await read(*asked)

        served.broker.loading.read = read_late  # type: ignore[method-assign, assignment]  # it waits
        first = asyncio.create_task(submit(served.stub, request))
        await looked.wait()
        await submit(served.stub, request)
        await worker.durable(await worker.complete(await worker.node(), value=b"done"))
        await served.until(lambda broker: broker.scheduler.node(dag.id(1)) is None)
        gate.set()
        await first
        assert await served.value(dag.instance, dag.id(1)) == envelope(b"done")
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            await submit(served.stub, dag.submission(b"other", **more))


async def test_a_call_that_hangs_up_does_not_take_the_answer_from_the_others() -> None:
    async with serving() as served:
        entered, gate = held(served, "look")
        leaving = asyncio.create_task(submit(served.stub, Dag().submission(b"a")))
        await asyncio.to_thread(entered.wait)
        leaving.cancel()
        staying = Dag()
        submitted = asyncio.create_task(submit(served.stub, staying.submission(b"a")))
        await served.until(lambda broker: len(broker.loading.looks.under_way) > 0)
        gate.set()
        await submitted
        assert await served.states(staying.instance, staying.id(0)) == [pb.QUEUED]


async def test_a_report_that_names_nothing_in_the_store_asks_it_nothing() -> None:
    async with serving() as served:
        worker = await served.worker()
        await submit(served.stub, Dag().submission(b"a", functions=[LEAF]))
        asked = far_store(served).looks
        await worker.durable(await worker.complete(await worker.node(), value=b"done"))
        assert far_store(served).looks == asked


async def test_large_values_of_submissions_that_are_looked_up_are_known_so_that_they_are_not_collected() -> None:
    async with serving() as served:
        put = await served.stub.PutValue(iter([pb.ValueChunk(data=b"large")]))
        entered, gate = held(served, "look")
        dag = Dag()
        request = dag.submission(b"a", large=[put.sha256])
        submitted = asyncio.create_task(submit(served.stub, request))
        await asyncio.to_thread(entered.wait)
        assert served.broker.loading.looks.large() == {put.sha256}
        gate.set()
        await submitted
        chunks = served.stub.GetValue(pb.GetValueRequest(sha256=put.sha256))
        assert b"".join([chunk.data async for chunk in chunks]) == b"large"
