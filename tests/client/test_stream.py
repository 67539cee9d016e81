"""The open stream: one for all threads, opened when something is asked, closed when nothing is, opened again."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc
import pytest

from dagorama import DAGDefinition, dagorama, resolve
from dagorama.api import broker_pb2 as pb
from dagorama.client import connection as connection_module
from dagorama.client import stream
from dagorama.definition import generate_instance_id
from dagorama.errors import BrokerUnavailable
from tests.support.recording_broker import RecordingBroker, serving

PATIENCE = 20


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, payload: bytes) -> bytes:
        return payload


def test_threads_share_one_stream(broker: RecordingBroker) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: generate_instance_id(), range(40)))
    assert {each.bytes for each in made} == set(broker.instances)
    assert (broker.talks, broker.submissions) == (1, 40)


def test_an_idle_stream_is_closed_and_the_next_request_opens_another(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "IDLE", 0.01)
    for talks in (1, 2):
        generate_instance_id()
        assert broker.talks_ended.get(timeout=PATIENCE) == "the client"
        assert broker.talks == talks


def test_a_stream_stays_open_while_a_node_is_waited_for(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "IDLE", 0.01)
    instance, promise = Task()(b"x")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(resolve, instance, promise, timeout=PATIENCE)
        while broker.asked.get(timeout=PATIENCE) != "wait":
            pass
        talks = broker.talks
        broker.run()
        assert waiting.result(PATIENCE) == b"x"
    assert broker.talks == talks


def test_a_broker_that_was_restarted_between_two_calls_is_found(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving()
    with first:
        monkeypatch.setenv("DAGORAMA_PORT", f"{first.broker.port}")
        generate_instance_id()
    with serving(first.broker.port) as again:
        assert generate_instance_id().bytes in again.instances


def test_an_answer_that_does_not_come_in_time_is_an_error_and_of_no_interest_later(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()
    submit = RecordingBroker.submit

    def slow(self: RecordingBroker, request: pb.SubmitRequest, context: grpc.ServicerContext) -> Any:
        go_on.wait(PATIENCE)
        return submit(self, request, context)

    with monkeypatch.context() as patch:
        patch.setattr(RecordingBroker, "submit", slow)
        patch.setattr(connection_module.Connection._ask, "__defaults__", (0.05,))
        with pytest.raises(BrokerUnavailable, match="did not answer in time") as late:
            generate_instance_id()
    assert late.value.status == "DEADLINE_EXCEEDED"
    go_on.set()
    assert generate_instance_id().bytes in broker.instances
    assert broker.talks == 1


def test_what_goes_together_stays_under_the_limit_of_a_message(broker: RecordingBroker) -> None:
    payloads = [bytes([number]) * 200_000 for number in range(60)]
    with ThreadPoolExecutor(30) as threads:
        made = list(threads.map(lambda payload: Task()(payload), payloads))
    broker.run()
    assert [resolve(*each) for each in made] == payloads
    assert broker.talks == 1


def test_a_stream_is_closed_before_a_fork_unless_a_request_is_open(broker: RecordingBroker) -> None:
    """gRPC's support for forks waits for its threads."""

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    instance, promise = Task()(b"x")
    fork()
    assert broker.talks_ended.get(timeout=PATIENCE) == "the client"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(resolve, instance, promise, timeout=PATIENCE)
        while broker.asked.get(timeout=PATIENCE) != "wait":
            pass
        fork()
        broker.run()
        assert waiting.result(PATIENCE) == b"x"
    assert broker.talks == 2


def test_a_program_ends_at_once_though_the_stream_is_open(broker: RecordingBroker) -> None:
    code = "from dagorama.definition import generate_instance_id; generate_instance_id()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE / 2)
    assert (done.returncode, done.stderr) == (0, "")
