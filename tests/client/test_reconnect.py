"""A broker that is lost is waited for from the moment of the loss; a call that was broken off is sent again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import grpc
import pytest

from dagorama import aresolve, as_completed, batch, put, resolve, resolve_all, state
from dagorama.client import reconnect
from dagorama.client.connection import connection
from dagorama.client.reconnect import Loss
from dagorama.client.status import is_broken_off, was_reached
from dagorama.client.waiter import NodeWaiter
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, generate_instance_id
from dagorama.errors import BrokerError, BrokerUnavailable
from dagorama.settings import broker_wait
from tests.support.recording_broker import RecordingBroker, serving
from tests.support.resetting_proxy import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    INTERNAL,
    NO_ERROR,
    REFUSED_STREAM,
    ResettingProxy,
    resetting,
)

#: Its tests start processes and wait for them, ten seconds and more together.
pytestmark = pytest.mark.slow


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 1


class Clock:
    """The clock by which patience is counted: it stands still until it is moved, or goes fast."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0  #: seconds that pass with each look

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconnect, "monotonic", clock)
    return clock


def point_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGORAMA_PORT", str(port))


# --- waits across a restart ---------------------------------------------------------------------------

Wait = Callable[[Any, Any], Any]
WAITS: dict[str, Wait] = {
    "resolve": lambda instance, promise: resolve(instance, promise, timeout=None),
    "resolve with a timeout": lambda instance, promise: resolve(instance, promise, timeout=10_000),
    "aresolve": lambda instance, promise: asyncio.run(aresolve(instance, promise)),
    "resolve_all": lambda instance, promise: resolve_all([(instance, promise)])[0],
    "as_completed": lambda instance, promise: next(
        resolve(instance, each, timeout=None) for each in as_completed(instance, [promise])
    ),
    "many at once": lambda instance, promise: resolve_all([(instance, promise)] * 3)[2],
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_of_any_age_goes_on_across_restarts(wait: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    with serving() as broker:
        point_at(broker.port, monkeypatch)
        instance, promise = Sample()()
        thread = threading.Thread(target=lambda: found.append(WAITS[wait](instance, promise)), daemon=True)
        thread.start()
        until(lambda: broker.waits)
        clock.now += 10_000  # whatever its age, the loss is new
    for restart in range(4):
        again = serving(broker.port)
        again.broker.nodes, again.broker.instances = broker.nodes, broker.instances
        with again as present:
            until(lambda: not all(wait.now for wait in present.waits))  # it waits again, and does not only ask
            clock.now += 10_000
            if restart == 3:
                present.end(promise.node_id, 1)
                thread.join(10)
    assert found == [1]


def test_a_first_wait_that_was_never_answered_had_a_broker_all_the_same(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that waits has got its promise from another one, and has asked this broker nothing before."""
    found: list[Any] = []
    with serving() as broker:
        point_at(broker.port, monkeypatch)
        instance, promise = Sample()()
    restarted = serving(broker.port)
    restarted.broker.nodes, restarted.broker.instances = broker.nodes, broker.instances
    monkeypatch.setattr("dagorama.client.connection._current", None)
    with restarted as broker:
        thread = threading.Thread(target=lambda: found.append(resolve(instance, promise, timeout=None)), daemon=True)
        thread.start()
        until(lambda: broker.waits)
        assert not connection().has_answered
    until(lambda: connection().has_answered)
    clock.now += broker_wait() - 1
    again = serving(broker.port)
    again.broker.nodes, again.broker.instances = broker.nodes, broker.instances
    with again as present:
        until(lambda: present.waits)
        present.end(promise.node_id, 1)
        thread.join(10)
    assert found == [1]


def test_a_wait_whose_broker_does_not_come_back_ends_with_the_way_to_start_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[BaseException] = []

    def wait() -> None:
        try:
            resolve(instance, promise, timeout=None)
        except BrokerUnavailable as error:
            found.append(error)

    with serving() as broker:
        point_at(broker.port, monkeypatch)
        instance, promise = Sample()()
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        until(lambda: broker.waits)
    clock.step = broker_wait() / 5
    thread.join(10)
    (error,) = found
    assert "dagorama-broker serve" in str(error)


# --- calls across a restart ---------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "a submission": lambda instance, promise: Sample()(),
    "a call on an instance": lambda instance, promise: instance.entrypoint(),
    "a block of submissions": lambda instance, promise: _together(),
    "state": lambda instance, promise: state(instance, promise),
    "resolve without waiting": lambda instance, promise: resolve(instance, promise),
    "put": lambda instance, promise: put(b"x" * 300_000),
    "attach": lambda instance, promise: Sample.attach(instance.instance_id),
}


def _together() -> None:
    with batch():
        Sample()()
        Sample()()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_waits_for_a_broker_that_has_answered_before(
    call: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    with serving() as broker:
        point_at(broker.port, monkeypatch)
        instance, promise = Sample()()
    looks = looking(monkeypatch)
    thread = threading.Thread(target=lambda: done.append(CALLS[call](instance, promise)), daemon=True)
    thread.start()
    until(lambda: next(looks) > 3)  # it has failed a few times
    clock.now += broker_wait() - 1
    again = serving(broker.port)
    again.broker.nodes, again.broker.instances = broker.nodes, broker.instances
    with again:
        thread.join(10)
    assert done


def test_a_call_gives_up_on_a_broker_that_stays_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as broker:
        point_at(broker.port, monkeypatch)
        generate_instance_id()
    clock.step = broker_wait() / 5
    with pytest.raises(BrokerUnavailable, match="dagorama-broker serve"):
        generate_instance_id()


def test_a_first_call_where_nothing_listens_fails_soon(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as broker:
        point_at(broker.port, monkeypatch)
    clock.step = 1.0
    with pytest.raises(BrokerUnavailable, match=r"no broker answers at .* start one with `dagorama-broker serve`"):
        generate_instance_id()
    assert clock.now < 7


# --- what grpc makes of a broken stream -----------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RecordingBroker, ResettingProxy]]:
    with serving() as broker, resetting(broker.port) as proxy:
        point_at(proxy.port, monkeypatch)
        yield broker, proxy


CODES = {
    "NO_ERROR": NO_ERROR, "INTERNAL_ERROR": INTERNAL, "REFUSED_STREAM": REFUSED_STREAM, "CANCEL": CANCEL,
    "ENHANCE_YOUR_CALM": ENHANCE_YOUR_CALM, "INADEQUATE_SECURITY": INADEQUATE_SECURITY,
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_submission_whose_stream_is_reset_is_sent_again(
    proxy: tuple[RecordingBroker, ResettingProxy], code: str
) -> None:
    broker, between = proxy
    between.resets.extend([CODES[code]] * 3)
    instance, _ = Sample()()
    assert list(broker.instances) == [instance.instance_id.bytes]
    assert not between.resets


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "CANCEL"])
@pytest.mark.parametrize("call", CALLS)
def test_every_other_call_whose_stream_is_reset_is_sent_again(
    proxy: tuple[RecordingBroker, ResettingProxy], call: str, code: str
) -> None:
    _, between = proxy
    instance, promise = Sample()()
    connection().close_stream()
    between.resets.extend([CODES[code]] * 2)
    CALLS[call](instance, promise)
    assert not between.resets


@pytest.mark.parametrize("code", ["CANCEL", "ENHANCE_YOUR_CALM"])
@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_whose_stream_is_reset_goes_on(
    proxy: tuple[RecordingBroker, ResettingProxy], wait: str, code: str
) -> None:
    broker, between = proxy
    instance, promise = Sample()()
    connection().close_stream()
    broker.end(promise.node_id, 1)
    between.resets.extend([CODES[code]] * 3)
    assert WAITS[wait](instance, promise) == 1


def test_a_wait_for_many_nodes_is_a_call_of_its_own_and_goes_on_too(
    proxy: tuple[RecordingBroker, ResettingProxy],
) -> None:
    broker, between = proxy
    instance, _ = Sample()()
    promises: list[Any] = [instance.entrypoint() for _ in range(12)]
    for promise in promises:
        broker.end(promise.node_id, 1)
    between.resets.extend([CANCEL, INTERNAL, ENHANCE_YOUR_CALM])
    assert resolve_all([(instance, promise) for promise in promises]) == [1] * 12
    assert not between.resets


@pytest.mark.parametrize("code", [NO_ERROR, INTERNAL, ENHANCE_YOUR_CALM])
def test_a_connection_that_is_closed_with_goaway_is_opened_again(
    proxy: tuple[RecordingBroker, ResettingProxy], code: int
) -> None:
    broker, between = proxy
    between.goaways.extend([code] * 2)
    instance, _ = Sample()()
    assert list(broker.instances) == [instance.instance_id.bytes]


def test_streams_that_are_always_reset_end_a_call_with_what_was_said(
    proxy: tuple[RecordingBroker, ResettingProxy], clock: Clock
) -> None:
    _, between = proxy
    between.resets.extend([CANCEL] * 1000)
    clock.step = broker_wait() / 5
    with pytest.raises(BrokerUnavailable, match=r"the connection to the broker at .* broke off \(CANCELLED: "):
        generate_instance_id()


def test_streams_that_are_always_reset_end_a_wait_too(
    proxy: tuple[RecordingBroker, ResettingProxy], clock: Clock
) -> None:
    _, between = proxy
    instance, promise = Sample()()
    connection().close_stream()
    between.resets.extend([CANCEL] * 1000)
    clock.step = broker_wait() / 5
    with pytest.raises(BrokerUnavailable, match="broke off"):
        resolve(instance, promise, timeout=None)


def test_a_call_that_was_cancelled_elsewhere_is_sent_again(broker: RecordingBroker) -> None:
    broker.refusal = grpc.StatusCode.CANCELLED, "by somebody else"
    threading.Timer(0.3, lambda: setattr(broker, "refusal", None)).start()
    assert generate_instance_id().bytes in broker.instances


def test_an_error_of_the_brokers_own_is_not(broker: RecordingBroker) -> None:
    broker.refusal = grpc.StatusCode.INTERNAL, "a fault of its own"
    with pytest.raises(BrokerError, match="a fault of its own") as refused:
        generate_instance_id()
    assert refused.value.status == "INTERNAL"


def test_what_was_cancelled_here_is_not_tried_again(broker: RecordingBroker) -> None:
    """Nodes by the dozen are waited for by a call of its own, which grpc itself cancels."""
    instance, _ = Sample()()
    promises: list[Any] = [instance.entrypoint() for _ in range(12)]
    waiting = NodeWaiter({promise.node_id: instance.instance_id.bytes for promise in promises})
    ended: list[BaseException | None] = []

    def wait() -> None:
        try:
            list(waiting.ended(None))
            ended.append(None)
        except BrokerError as error:
            ended.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until(lambda: broker.waits)
    waiting.close()
    thread.join(10)
    assert len(ended) == 1
    assert len(broker.waits) == 1


def test_cancelling_an_aresolve_ends_its_call(proxy: tuple[RecordingBroker, ResettingProxy]) -> None:
    broker, _ = proxy
    instance, promise = Sample()()

    async def cancelled() -> None:
        task = asyncio.ensure_future(aresolve(instance, promise))
        while not broker.waits:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    until(lambda: broker.hung_up)
    assert len(broker.waits) == 1


@pytest.mark.parametrize(("status", "details", "broken", "reached"), [
    ("CANCELLED", "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))", True, True),
    ("CANCELLED", "Received RST_STREAM with error code 8", True, True),
    ("CANCELLED", "", True, True),
    ("CANCELLED", "Locally cancelled by application!", False, False),
    ("INTERNAL", "Received RST_STREAM with error code 2", True, True),
    ("INTERNAL", "a fault of its own", False, True),
    ("UNKNOWN", "Stream removed", True, True),
    ("UNKNOWN", "Unexpected <class 'ValueError'>: boom", False, True),
    ("RESOURCE_EXHAUSTED", "GOAWAY received; Error code: 11; Debug Text: too_many_pings", True, True),
    ("RESOURCE_EXHAUSTED", "the broker holds as much as it may", False, True),
    ("PERMISSION_DENIED", "the token 'GOAWAY received' may not do this", False, True),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", False, False),
    ("UNAVAILABLE", "DNS resolution failed for nowhere:1: Domain name not found", False, False),
    ("UNAVAILABLE", "Socket closed", False, True),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", False, False),
])  # fmt: skip
def test_what_grpc_says_is_told_apart(status: str, details: str, broken: bool, reached: bool) -> None:
    assert (is_broken_off(status, details), was_reached(status, details)) == (broken, reached)


# --- helpers --------------------------------------------------------------------------------------------


def until(is_so: Callable[[], Any], seconds: float = 10.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it does not come about")


def looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """How often a loss was noticed since."""
    noticed = Loss.note_failure
    times = [0]

    def counted(self: Loss, was_connected: bool) -> float:
        times[0] += 1
        return noticed(self, was_connected)

    monkeypatch.setattr(Loss, "note_failure", counted)
    return (times[0] for _ in count())


class TestLoss:
    def test_counts_from_the_first_failure(self, clock: Clock) -> None:
        loss = Loss()
        clock.now = 1_000.0
        assert loss.note_failure(True) == 0
        clock.now += 5
        assert loss.note_failure(False) == 5

    def test_ends_with_an_answer(self, clock: Clock) -> None:
        loss = Loss()
        loss.note_failure(True)
        loss.over()
        clock.now += 100
        assert loss.note_failure(False) == 0

    def test_begins_again_when_a_connection_that_came_about_breaks_off(self, clock: Clock) -> None:
        loss = Loss()
        loss.note_failure(True)
        clock.now += 100
        assert not loss.is_doubtful
        assert loss.note_failure(True) == 0

    def test_does_not_begin_again_for_ever(self, clock: Clock) -> None:
        loss = Loss()
        loss.note_failure(True)
        loss.note_failure(True)
        assert loss.is_doubtful
        clock.now += 30
        assert loss.note_failure(True) == 30
        loss.over()
        assert not loss.is_doubtful
