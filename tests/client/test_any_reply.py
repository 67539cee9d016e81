"""Whatever a broker says, a client has a value that it can rely on, or an error of ours; it never hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given

from dagorama import DAGDefinition, DagoramaError, as_completed, dagorama, resolve
from dagorama.api import broker_pb2 as pb
from tests.proof.fuzz import contents, examples
from tests.support.recording_broker import RecordingBroker

REPLIES = int(os.environ.get("REPLY_EXAMPLES", "50"))  #: `make proof` sets more


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_client_takes_whatever_a_broker_answers_to_its_waiting(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    instance, promise = Task()(7)
    answers: list[pb.WaitReply] = []

    def wait(self: RecordingBroker, request: pb.WaitRequest, context: grpc.ServicerContext) -> Iterator[pb.WaitReply]:
        yield from answers

    monkeypatch.setattr(RecordingBroker, "Wait", wait)
    heard = []

    @examples(REPLIES, seed)
    @given(reply=contents(pb.WaitReply.DESCRIPTOR))
    def say(reply: Any) -> None:
        if seed:  # it speaks of the node that was asked for, so that what is behind that is reached, or of no node
            reply.index[:] = [1 if seed == 3 else 0] * len(reply.state)
        if seed == 2:
            reply.value_node[:] = [promise.node_id] * len(reply.value)
        answers[:] = [reply]
        for ask in (
            lambda: resolve(instance, promise, timeout=0.01),
            lambda: list(as_completed(instance, [promise], timeout=0.01)),
        ):
            try:
                ask()
            except (DagoramaError, TimeoutError) as error:
                heard.append(type(error).__name__)

    say()
    assert heard
