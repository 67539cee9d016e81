"""Many instances and calls in one submission: known whole when the block ends, or not at all."""

import asyncio
import threading

import pytest

from dagorama import (
    DAGDefinition,
    NotFound,
    PromiseMisuse,
    batch,
    cancel,
    dagorama,
    delete,
    resolve,
    retry_failed,
    send,
)
from tests.support.recording_broker import RecordingBroker


class Square(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number * number


class AsyncSquare(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return number * number


def test_a_block_is_one_call_however_many_instances_it_makes(broker: RecordingBroker) -> None:
    with batch():
        made = [Square()(number) for number in range(50)]
        assert broker.submissions == 0
    assert broker.submissions == 1
    broker.run()
    assert [resolve(instance, promise) for instance, promise in made] == [number**2 for number in range(50)]


def test_calls_on_an_instance_of_the_block_are_part_of_it(broker: RecordingBroker) -> None:
    with batch():
        instance, _ = Square()(2)
        later = instance.entrypoint(3)
    broker.run()
    assert (broker.submissions, resolve(instance, later)) == (1, 9)


def test_a_block_that_makes_nothing_says_nothing(broker: RecordingBroker) -> None:
    with batch():
        pass
    assert broker.submissions == 0


def test_a_block_that_raises_has_made_nothing(broker: RecordingBroker) -> None:
    made = []

    def block() -> None:
        with batch():
            made.append(Square()(2))
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        block()
    assert broker.submissions == 0
    ((instance, promise),) = made
    with pytest.raises(NotFound):
        resolve(instance, promise)
    Square()(3)
    assert broker.submissions == 1, "what comes after is no part of it"


def test_a_block_inside_another_is_part_of_that(broker: RecordingBroker) -> None:
    with batch():
        with batch():
            Square()(1)
        Square()(2)
        assert broker.submissions == 0
    assert broker.submissions == 1


def test_what_the_block_has_made_cannot_be_asked_for_before_it_ends(broker: RecordingBroker) -> None:
    with batch():
        instance, promise = Square()(2)
        with pytest.raises(PromiseMisuse, match="ask for it after the block"):
            resolve(instance, promise)


def test_an_instance_of_the_block_cannot_be_sent_to_or_changed_before_it_ends(broker: RecordingBroker) -> None:
    with batch():
        instance, _ = Square()(2)
        for ask in (
            cancel,
            delete,
            retry_failed,
            lambda it: send(it, "s", 1),
            lambda it: send(f"{it.instance_id}", "s", 1),
        ):
            with pytest.raises(PromiseMisuse, match=r"\) was called with the instance .* call it after the block"):
                ask(instance)


def test_async_entry_points_and_tasks_of_the_block_belong_to_it(broker: RecordingBroker) -> None:
    async def make() -> None:
        with batch():
            await asyncio.gather(*[AsyncSquare()(number) for number in range(5)])

    asyncio.run(make())
    assert broker.submissions == 1


def test_other_threads_are_not_held_back(broker: RecordingBroker) -> None:
    with batch():
        Square()(1)
        other = threading.Thread(target=lambda: Square()(2))
        other.start()
        other.join()
        assert broker.submissions == 1
    assert broker.submissions == 2


def test_more_than_one_message_holds_is_still_one_submission(broker: RecordingBroker) -> None:
    class Echo(DAGDefinition):
        @dagorama().syncfn
        def entrypoint(self, data: bytes) -> int:
            return len(data)

    with batch():
        made = [Echo()(bytes(200_000)) for _ in range(30)]
    broker.run()
    assert [resolve(*each) for each in made] == [200_000] * 30
    assert (broker.submissions, broker.streamed) == (0, 1)
    assert all(request.ByteSize() < 4 << 20 for request in broker.requests)
