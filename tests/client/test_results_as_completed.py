"""as_completed(): promises in the order in which their nodes end, for `for` and `async for`, on one call."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import pytest

from dagorama.api import broker_pb2
from dagorama.client.completed import AsCompleted, as_completed
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id, resolve
from dagorama.errors import NodeFailed, NotFound, PromiseMisuse, WrongInstance
from dagorama.graph.scope import AttemptScope
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome
from dagorama.models.promise import DAGPromise
from tests.support.recording_broker import RecordingBroker, failure, serving


class Sample(DAGDefinition):
    def entrypoint(self) -> Any: ...

    @dagorama().syncfn
    def work(self, number: int) -> int:
        return number


@pytest.fixture
def instance(broker: RecordingBroker) -> Any:
    return DAGInstance(generate_instance_id(), Sample())


@pytest.fixture
def promises(instance: Any) -> list[DAGPromise[int]]:
    return [instance.work(number) for number in range(4)]


def collected(completed: AsCompleted[Any]) -> list[DAGPromise[Any]]:
    return list(completed)


def collected_async(completed: AsCompleted[Any]) -> list[DAGPromise[Any]]:
    async def collect() -> list[DAGPromise[Any]]:
        return [promise async for promise in completed]

    return asyncio.run(collect())


BOTH = pytest.mark.parametrize("collect", [collected, collected_async])
Collect = Callable[[AsCompleted[Any]], list[DAGPromise[Any]]]


def end_in_order(broker: RecordingBroker, *promises: DAGPromise[Any], pause: float = 0.1) -> threading.Thread:
    def end() -> None:
        for promise in promises:
            time.sleep(pause)
            broker.end(promise.node_id, f"value of {promise.identifier}")

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    return thread


@BOTH
def test_promises_come_as_their_nodes_end(
    broker: RecordingBroker, instance: Any, promises: list[Any], collect: Collect
) -> None:
    order = [promises[number] for number in (2, 0, 3, 1)]
    end_in_order(broker, *order)
    assert collect(as_completed(instance, promises)) == order
    assert len(broker.waits) == 1
    assert not broker.waits[0].now


@BOTH
def test_each_comes_once_and_as_it_was_given(
    broker: RecordingBroker, instance: Any, promises: list[Any], collect: Collect
) -> None:
    broker.run()
    wrapped = outcome(promises[0])
    found = collect(as_completed(instance, [wrapped, promises[1], promises[0], promises[1]]))
    assert [promise is wrapped or promise is promises[1] for promise in found] == [True, True]


@BOTH
def test_an_empty_wait_makes_no_call(broker: RecordingBroker, instance: Any, collect: Collect) -> None:
    assert collect(as_completed(instance, [])) == []
    assert not broker.waits


def test_the_value_of_the_one_at_hand_is_not_asked_for_again(
    broker: RecordingBroker, instance: Any, promises: list[Any]
) -> None:
    broker.run()
    values = [resolve(instance, promise, timeout=None) for promise in as_completed(instance, promises)]
    assert sorted(values) == [0, 1, 2, 3]
    assert len(broker.waits) == 1
    resolve(instance, promises[0])
    assert len(broker.waits) == 2


async def test_async_code_asks_for_each_value_once(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    broker.run()
    values = {resolve(instance, promise) async for promise in as_completed(instance, promises)}
    assert values == {0, 1, 2, 3}
    assert len(broker.waits) == 1


def test_failures_come_too(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    bad = broker.nodes[promises[0].node_id]
    bad.state, bad.failure = broker_pb2.FAILED, failure(bad, ValueError("no"))
    broker.run()
    results = {promise: resolve(instance, outcome(promise), timeout=5) for promise in as_completed(instance, promises)}
    assert isinstance(results[promises[0]], Failure)
    assert [results[promise] for promise in promises[1:]] == [1, 2, 3]
    with pytest.raises(NodeFailed):
        [resolve(instance, promise) for promise in as_completed(instance, promises)]


@BOTH
def test_what_has_not_ended_in_time_is_an_error_after_what_has(
    broker: RecordingBroker, instance: Any, promises: list[Any], collect: Collect
) -> None:
    broker.end(promises[1].node_id, 1)
    broker.end(promises[3].node_id, 3)
    with pytest.raises(TimeoutError, match=r"2 of 4 promises have not ended after 0.3 seconds, one of .*Sample\.work"):
        collect(as_completed(instance, promises, timeout=0.3))


def test_no_time_at_all_gives_those_that_have_ended(
    broker: RecordingBroker, instance: Any, promises: list[Any]
) -> None:
    broker.end(promises[1].node_id, 1)
    completed = iter(as_completed(instance, promises, timeout=0))
    assert next(completed) == promises[1]
    with pytest.raises(TimeoutError):
        next(completed)


def test_the_time_counts_from_the_call(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    completed = as_completed(instance, promises, timeout=0.2)
    time.sleep(0.3)
    with pytest.raises(TimeoutError):
        list(completed)
    assert [wait.now for wait in broker.waits] == [True], "no time is left to wait"


@BOTH
def test_a_broker_that_restarts_is_asked_about_the_rest(monkeypatch: pytest.MonkeyPatch, collect: Collect) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    with serving() as broker:
        monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
        instance: Any = DAGInstance(generate_instance_id(), Sample())
        promises = [instance.work(number) for number in range(3)]
        completed = as_completed(instance, promises, timeout=20)
        found: list[DAGPromise[Any]] = []
        thread = threading.Thread(target=lambda: found.extend(collect(completed)), daemon=True)
        broker.end(promises[2].node_id, 2)
        thread.start()
        while not broker.waits:
            time.sleep(0.01)
        time.sleep(0.2)
    again = serving(broker.port)
    again.broker.nodes = broker.nodes
    with again:
        end_in_order(again.broker, promises[1], promises[0]).join()
        thread.join(10)
    assert found == [promises[2], promises[1], promises[0]]
    assert [len(wait.node) for wait in again.broker.waits] == [2]


@BOTH
def test_an_unknown_node_is_an_error(
    broker: RecordingBroker, instance: Any, promises: list[Any], collect: Collect
) -> None:
    with pytest.raises(NotFound):
        collect(as_completed(instance, [*promises, DAGPromise[int](UUID(int=4))]))


def test_leaving_the_loop_ends_the_waiting(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    broker.end(promises[0].node_id, 0)
    for _ in as_completed(instance, promises):
        break
    _until(lambda: broker.hung_up)


async def test_leaving_an_async_loop_does_so_too(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    broker.end(promises[0].node_id, 0)
    completed = aiter(as_completed(instance, promises))
    await anext(completed)
    await completed.aclose()  # type: ignore[attr-defined]  # it is a generator
    await asyncio.to_thread(_until, lambda: broker.hung_up)


async def test_cancelling_an_async_loop_ends_the_waiting(
    broker: RecordingBroker, instance: Any, promises: list[Any]
) -> None:
    async def wait() -> None:
        async for _ in as_completed(instance, promises):
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait(), 0.2)
    await asyncio.to_thread(_until, lambda: broker.hung_up)


def _until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


# --- refused at once


def test_as_completed_refuses_a_promise_of_another_instance(
    broker: RecordingBroker, instance: Any, promises: list[Any]
) -> None:
    stranger: Any = DAGInstance(generate_instance_id(), Sample())
    with pytest.raises(WrongInstance):
        as_completed(instance, [*promises, stranger.work(1)])


def test_as_completed_refuses_anything_but_promises(instance: Any) -> None:
    with pytest.raises(TypeError, match="takes promises, not a int"):
        as_completed(instance, cast(Any, [1]))


def test_more_than_one_message_can_name_is_refused(instance: Any) -> None:
    with pytest.raises(ValueError, match="200,001 promises are more than"):
        as_completed(instance, [DAGPromise[int](UUID(int=0))] * 200_001)


def test_a_running_node_does_not_wait(broker: RecordingBroker, instance: Any, promises: list[Any]) -> None:
    token = current_attempt.set(AttemptScope(b"i" * 16))
    try:
        with pytest.raises(PromiseMisuse, match=r"as_completed\(\) would wait inside a running node.*return the"):
            as_completed(instance, promises)
    finally:
        current_attempt.reset(token)
    assert not broker.waits
