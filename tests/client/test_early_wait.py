"""A caller that waits for each instance sends that wait along with the next submission; another caller does not."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc
import pytest

from dagorama import DAGDefinition, dagorama, resolve
from dagorama.definition import generate_instance_id
from tests.support.recording_broker import RecordingBroker

PATIENCE = 20


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, payload: bytes) -> bytes:
        return payload


def asked_of(broker: RecordingBroker) -> list[str]:
    """Return the kinds of all requests since the last look, without cancellations of waits that may be over."""
    generate_instance_id()  # its answer comes after all earlier requests were read
    kinds = [broker.asked.get() for _ in range(broker.asked.qsize())]
    assert kinds.pop() == "submit"
    return [kind for kind in kinds if kind != "cancel"]


def resolved(broker: RecordingBroker, payload: bytes = b"x") -> bytes:
    instance, promise = Task()(payload)
    broker.run()
    return resolve(instance, promise, timeout=PATIENCE)


def test_the_wait_goes_along_after_a_submission_was_waited_for(broker: RecordingBroker) -> None:
    for _ in range(3):
        assert resolved(broker) == b"x"
    instance, promise = Task()(b"y")
    assert asked_of(broker) == ["submit", "wait"] * 4  # the last wait before the value was asked for
    broker.run()
    assert resolve(instance, promise, timeout=PATIENCE) == b"y"


def test_a_submission_that_is_not_waited_for_ends_the_habit(broker: RecordingBroker) -> None:
    resolved(broker)
    for _ in range(4):
        Task()(b"y")
    assert asked_of(broker) == ["submit", "wait", "submit", "wait", "submit", "submit", "submit"]
    assert len(broker.waits) == 2


def test_another_thread_may_wait(broker: RecordingBroker) -> None:
    resolved(broker)
    instance, promise = Task()(b"y")
    broker.run()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(resolve, instance, promise, timeout=PATIENCE).result(PATIENCE) == b"y"
    assert resolve(instance, promise, timeout=PATIENCE) == b"y"


def test_the_wait_does_not_keep_the_stream_open_across_a_fork(broker: RecordingBroker) -> None:
    resolved(broker)
    instance, promise = Task()(b"y")
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    assert broker.talks_ended.get(timeout=PATIENCE) == "the client"
    broker.run()
    assert resolve(instance, promise, timeout=PATIENCE) == b"y"


def test_a_wait_that_is_refused_because_it_came_too_early_is_repeated(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker reads it before it has made the nodes of a submission for which it must read its store."""
    resolved(broker)
    known, refused = RecordingBroker.Wait, Event()

    def too_early(self: RecordingBroker, request: Any, context: Any) -> Any:
        if not refused.is_set():
            refused.set()
            context.abort(grpc.StatusCode.NOT_FOUND, "no such node")
        return known(self, request, context)

    monkeypatch.setattr(RecordingBroker, "Wait", too_early)
    assert resolved(broker, b"y") == b"y"
    assert refused.is_set()


def test_a_failure_and_a_timeout_reach_a_caller_whose_wait_went_along(broker: RecordingBroker) -> None:
    resolved(broker)
    instance, promise = Task()(b"y")
    with pytest.raises(TimeoutError):
        resolve(instance, promise, timeout=0.05)
    broker.run()
    assert resolve(instance, promise, timeout=PATIENCE) == b"y"
