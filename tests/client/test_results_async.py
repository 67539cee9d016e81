"""aresolve(): resolve() for async code, which leaves the loop free and can be cancelled."""

import asyncio
import threading
import time
from typing import Any

import pytest

from dagorama.api import broker_pb2
from dagorama.client.results import aresolve
from dagorama.client.worker_thread import WaiterThread
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition
from dagorama.errors import BrokerUnavailable, NodeFailed, PromiseMisuse, WrongInstance
from dagorama.graph.scope import AttemptScope
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome
from dagorama.models.promise import DAGPromise
from tests.support.recording_broker import RecordingBroker, failure


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, value: Any) -> Any:
        return value


@pytest.fixture
def made(broker: RecordingBroker) -> tuple[Any, DAGPromise[Any]]:
    return Sample()(5)


async def test_aresolve_waits_for_the_value(broker: RecordingBroker, made: Any) -> None:
    threading.Timer(0.3, broker.run).start()
    assert await aresolve(*made) == 5
    assert [wait.now for wait in broker.waits] == [False]


async def test_the_loop_goes_on_meanwhile(broker: RecordingBroker, made: Any) -> None:
    ticks = 0
    waiting = asyncio.create_task(aresolve(*made, timeout=5))
    while not waiting.done():
        await asyncio.sleep(0.01)
        ticks += 1
        if ticks == 20:
            broker.run()
    assert waiting.result() == 5


async def test_many_wait_side_by_side(broker: RecordingBroker) -> None:
    made = [Sample()(number) for number in range(4)]
    waiting = asyncio.gather(*(aresolve(*each) for each in made))
    while len(broker.waits) < 4:
        await asyncio.sleep(0.01)
    broker.run()
    assert await waiting == [0, 1, 2, 3]


async def test_what_a_plain_entry_point_returned_is_its_own_value(made: Any) -> None:
    assert await aresolve(made[0], "plain") == "plain"  # type: ignore[arg-type]


async def test_aresolve_ends_at_its_timeout(broker: RecordingBroker, made: Any) -> None:
    with pytest.raises(TimeoutError, match=r"no value after 0.2 seconds.*Sample\.entrypoint"):
        await aresolve(*made, timeout=0.2)


async def test_cancelling_it_ends_the_waiting_and_not_the_node(broker: RecordingBroker, made: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(aresolve(*made), 0.2)
    until = time.monotonic() + 5
    while not broker.hung_up and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert broker.hung_up
    assert not broker.cancels
    assert "dagorama-beside" not in {thread.name for thread in threading.enumerate() if _ends(thread)}


def _ends(thread: threading.Thread) -> bool:
    """Whether it is still there after a moment."""
    if thread.name == "dagorama-beside":
        thread.join(2)
    return thread.is_alive()


async def test_a_failure_raises_or_is_given(broker: RecordingBroker, made: Any) -> None:
    node = broker.nodes[made[1].node_id]
    node.state, node.failure = broker_pb2.FAILED, failure(node, ValueError("no rows"))
    with pytest.raises(NodeFailed, match="no rows"):
        await aresolve(*made)
    assert isinstance(await aresolve(made[0], outcome(made[1])), Failure)


@pytest.mark.slow
async def test_a_missing_broker_is_an_error(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    monkeypatch.setattr("dagorama.client.waiter.PATIENCE", 0.2)
    with pytest.raises(BrokerUnavailable):
        await aresolve(*made)


async def test_aresolve_refuses_a_promise_of_another_instance(broker: RecordingBroker, made: Any) -> None:
    _, stranger = Sample()(6)
    with pytest.raises(WrongInstance):
        await aresolve(made[0], stranger)


async def test_a_running_node_does_not_wait_but_may_look(broker: RecordingBroker, made: Any) -> None:
    current_attempt.set(AttemptScope(b"i" * 16))
    with pytest.raises(PromiseMisuse, match=r"would wait inside a running node.*return the promise"):
        await aresolve(*made)
    broker.end(made[1].node_id, 6)
    assert await aresolve(*made) == 6


def test_each_loop_can_use_it(broker: RecordingBroker, made: Any) -> None:
    broker.run()
    assert [asyncio.run(aresolve(*made)) for _ in range(2)] == [5, 5]


def test_an_answer_after_the_loop_was_closed_is_ignored() -> None:
    given_up, told = threading.Event(), threading.Event()

    def wait() -> None:
        given_up.wait(5)
        told.set()

    async def leave() -> None:
        async with WaiterThread(lambda: None) as thread:
            await asyncio.wait_for(thread.run(wait), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    given_up.set()
    assert told.wait(5)
