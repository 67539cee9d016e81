"""Workers in the calling process, and a broker that the test speaks for."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError, BrokerUnavailable, FunctionNotFound
from dagorama.runner import CodeMismatchException, execute_worker, execute_worker_async
from tests.support import worker_nodes
from tests.support.scripted_broker import WAIT, Conversation, ScriptedBroker
from tests.support.worker_grants import Wanted, call
from tests.support.worker_grants import values_of as told

Script = Callable[[Conversation], object]


@pytest.fixture(autouse=True)
def address(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
    worker_nodes.gate.clear()
    worker_nodes.reached.clear()
    worker_nodes.meetings.clear()
    yield
    worker_nodes.gate.set()


class Scripted:
    """The broker's side runs in a thread, so that the worker can have the test's own."""

    def __init__(self, broker: ScriptedBroker, script: Script) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(lambda: script(broker.greeted()))

    def answer(self) -> object:
        """What the script has come to."""
        return self._answer.result(WAIT)


def see_it_leave(spoken: Conversation) -> None:
    spoken.send(done=True)
    spoken.listen_to_the_end()


def values_of(*wanted: Wanted) -> Script:
    def script(spoken: Conversation) -> object:
        assert spoken.hello.until == pb.IDLE
        assert spoken.hello.slots == 1
        spoken.grant(*wanted)
        values = list(spoken.values(len(wanted)).values())
        see_it_leave(spoken)
        return values

    return script


def test_nodes_run_in_the_calling_process(broker: ScriptedBroker) -> None:
    scripted = Scripted(broker, values_of(call("pid"), call("echo", 1), call("run_a_loop")))
    execute_worker(infinite_loop=False)
    assert scripted.answer() == [os.getpid(), 1, "run"]


def test_async_nodes_overlap(broker: ScriptedBroker) -> None:
    scripted = Scripted(broker, values_of(call("meet", "local", 2), call("meet", "local", 2)))
    execute_worker(infinite_loop=False)
    assert scripted.answer() == [2, 2]


async def test_async_nodes_overlap_inside_an_event_loop(broker: ScriptedBroker) -> None:
    wanted = call("pid"), call("meet", "loop", 2), call("meet", "loop", 2)
    scripted = Scripted(broker, values_of(*wanted))
    await execute_worker_async(infinite_loop=False)
    answer = await asyncio.to_thread(scripted.answer)
    assert sorted(map(str, answer)) == sorted(["2", "2", str(os.getpid())])  # type: ignore[call-overload]


def test_an_in_process_worker_sends_heartbeats_while_a_node_runs(broker: ScriptedBroker) -> None:
    def script() -> None:
        spoken = broker.greeted(heartbeat=0.05)
        spoken.grant(call("wait_here"))
        assert worker_nodes.reached.wait(WAIT)
        spoken.listen(lambda: spoken.heartbeats >= 3)
        worker_nodes.gate.set()
        spoken.value()
        see_it_leave(spoken)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(script)
        execute_worker(infinite_loop=False)
        answer.result(WAIT)


def test_failures_are_the_brokers_business_unless_asked_for(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(call("fail", "no luck"), call("echo", 1))
        failures: list[str] = []
        values: list[object] = []
        while len(failures) + len(values) < 2:
            results = spoken.results()
            failures += [failure.message for failure in results.failures]
            values += told(results)
        see_it_leave(spoken)
        return failures, values

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer() == (["no luck"], [1])


def refusing_to_go_on(spoken: Conversation) -> object:
    attempts = spoken.grant(call("fail", "no luck"), call("echo", 1))
    failures = spoken.results().failures
    returned = spoken.returned()
    assert (list(returned.attempt), returned.reason) == (attempts[1:], pb.UNSTARTED)
    spoken.listen_to_the_end()
    return [failure.message for failure in failures]


def test_what_a_node_raised_is_raised_once_the_broker_knows(broker: ScriptedBroker) -> None:
    scripted = Scripted(broker, refusing_to_go_on)
    with pytest.raises(ValueError, match="no luck"):
        execute_worker(catch_exceptions=False)
    assert scripted.answer() == ["no luck"]


async def test_what_a_node_raised_is_raised_inside_an_event_loop_too(broker: ScriptedBroker) -> None:
    scripted = Scripted(broker, refusing_to_go_on)
    with pytest.raises(ValueError, match="no luck"):
        await execute_worker_async(catch_exceptions=False)
    assert await asyncio.to_thread(scripted.answer) == ["no luck"]


@pytest.mark.parametrize(
    ("wanted", "reason", "error"),
    [
        (Wanted("echo", [1], hash="another"), pb.CODE_MISMATCH, CodeMismatchException),
        (Wanted("work", definition="no_such_module:Thing", hash="any"), pb.NOT_IMPORTABLE, FunctionNotFound),
    ],
    ids=["other code", "not importable"],
)
def test_nodes_that_cannot_run_here_are_returned_and_then_raise(
    broker: ScriptedBroker, wanted: Wanted, reason: pb.ReturnReason.ValueType, error: type[Exception]
) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(wanted)
        returned = spoken.returned()
        spoken.listen_to_the_end()
        return returned.reason

    scripted = Scripted(broker, script)
    with pytest.raises(error):
        execute_worker(infinite_loop=False, catch_exceptions=False)
    assert scripted.answer() == reason


def test_the_same_nodes_are_only_returned_where_exceptions_are_caught(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(Wanted("echo", [1], hash="another"), call("echo", 2))
        value = spoken.value()
        returned = spoken.returned()
        see_it_leave(spoken)
        return value, returned.reason

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer() == (2, pb.CODE_MISMATCH)


def test_ctrl_c_returns_what_ran_and_ends_the_worker(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        attempts = spoken.grant(call("wait_here"), call("echo", 1))
        assert worker_nodes.reached.wait(WAIT)
        os.kill(os.getpid(), signal.SIGINT)
        spoken.listen(lambda: len(spoken.returns) == 2)
        spoken.listen_to_the_end()
        found = {returned.reason: list(returned.attempt) for returned in spoken.returns}
        return found == {pb.INTERRUPTED: attempts[:1], pb.UNSTARTED: attempts[1:]}

    scripted = Scripted(broker, script)
    with pytest.raises(KeyboardInterrupt):
        execute_worker()
    assert scripted.answer()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_keyboard_interrupt_of_user_code_fails_its_node_only(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(call("fail_with", "ctrl-c"))
        failure = spoken.results().failures[0]
        see_it_leave(spoken)
        return failure.type

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer() == "builtins.KeyboardInterrupt"


async def test_a_cancelled_worker_returns_what_it_has(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(call("echo", 1), call("meet", "never", 9))
        spoken.value()
        ready.set()
        returned = spoken.returned()
        spoken.listen_to_the_end()
        return returned.reason

    ready = threading.Event()
    scripted = Scripted(broker, script)
    worker = asyncio.create_task(execute_worker_async())
    assert await asyncio.to_thread(ready.wait, WAIT)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    assert await asyncio.to_thread(scripted.answer) == pb.INTERRUPTED


def test_a_broker_that_restarts_is_found_again(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        [attempt] = spoken.grant(call("wait_here"))
        assert worker_nodes.reached.wait(WAIT)
        broker.stop()
        worker_nodes.gate.set()
        broker.start_again()
        again = broker.greeted()
        values = again.values(1)
        see_it_leave(again)
        return values == {attempt: "let through"}

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer()


def test_a_refusal_is_raised(broker: ScriptedBroker) -> None:
    broker.refusals = [(grpc.StatusCode.UNAUTHENTICATED, "no token")]
    with pytest.raises(BrokerError, match="no token"):
        execute_worker()


@pytest.mark.slow
def test_a_worker_that_is_not_to_stay_says_that_there_is_no_broker(broker: ScriptedBroker) -> None:
    broker.stop()
    with pytest.raises(BrokerUnavailable):
        execute_worker(infinite_loop=False)


def test_no_threads_of_ours_are_left(broker: ScriptedBroker) -> None:
    before = our_threads()
    scripted = Scripted(broker, values_of(call("echo", 1), call("meet", "one", 1)))
    execute_worker(infinite_loop=False)
    scripted.answer()
    assert our_threads() <= before


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("dagorama-")}


@pytest.mark.parametrize(
    "wanted",
    [(call("until_cancelled"), call("wait_here")), (call("until_cancelled_async"),)],
    ids=["sync, with one queued behind it", "async"],
)
def test_a_run_hears_that_it_is_cancelled_and_nothing_is_told_of_it(
    broker: ScriptedBroker, wanted: tuple[Wanted, ...]
) -> None:
    def script(spoken: Conversation) -> object:
        spoken.send(cancel=[4711])  # it has ended here meanwhile
        attempts = spoken.grant(*wanted)
        assert worker_nodes.reached.wait(WAIT)
        spoken.send(cancel=attempts)
        [after] = spoken.grant(call("echo", "after"))
        values: dict[int, object] = {}
        while after not in values:
            results = spoken.results()
            assert not results.failures, results.failures
            values.update(zip(results.attempt, told(results), strict=True))
        see_it_leave(spoken)
        return values[after], list(spoken.returns)

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer() == ("after", [])


def test_children_of_an_eager_node_leave_while_it_holds_the_calling_thread(broker: ScriptedBroker) -> None:
    def script(spoken: Conversation) -> object:
        spoken.grant(call("make_and_wait", 2))
        results = spoken.results()
        assert not results.node
        worker_nodes.gate.set()
        last = spoken.results()
        see_it_leave(spoken)
        return [child.nodes.first for each in (results, last) for child in each.children], len(last.node)

    scripted = Scripted(broker, script)
    execute_worker(infinite_loop=False)
    assert scripted.answer() == ([0, 2], 1)
