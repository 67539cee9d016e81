"""Whatever a broker says, a worker goes on, or leaves with a sentence; it never hangs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given

from dagorama.api import broker_pb2 as pb
from tests.proof.fuzz import contents, examples
from tests.support.scripted_broker import Conversation, ScriptedBroker, worker_process
from tests.support.worker_grants import call

WORKERS, MESSAGES = 6, 25


def messages(seed: int) -> list[pb.BrokerMessage]:
    """That do not tell the worker to leave, or to come again."""
    drawn: list[pb.BrokerMessage] = []

    @examples(MESSAGES, seed)
    @given(message=contents(pb.BrokerMessage.DESCRIPTOR))
    def draw(message: Any) -> None:
        message.done = message.draining = False
        message.ClearField("welcome")
        if seed:  # the slots are right: what is behind them is reached
            for part in (*message.grants, *message.take_back):
                part.slot = 0
        drawn.append(message)

    draw()
    return drawn


def still_works(conversation: Conversation) -> bool:
    conversation.grant(call("echo", 5))
    try:
        while 5 not in conversation.values(1).values():
            pass
    except (AssertionError, grpc.RpcError):
        return False
    return True


@pytest.mark.parametrize("seed", range(WORKERS))
def test_a_worker_takes_whatever_a_broker_says_or_says_why_it_leaves(broker: ScriptedBroker, seed: int) -> None:
    with worker_process(broker) as worker:
        conversation = broker.greeted()
        for message in messages(seed):
            conversation.send(**{of.name: value for of, value in message.ListFields()})
        if not still_works(conversation):
            code, errors = worker.ended()
            was_drained = "worker: is leaving, as requested by `dagorama workers drain`" in errors
            assert was_drained or (code != 0 and "worker: its session with the broker failed" in errors)


@pytest.mark.parametrize(
    ("said", "of"),
    [
        ({"grants": [pb.Grant(slot=7)]}, "slot 7 of 1"),
        ({"take_back": [pb.TakeBack(slot=7)]}, "slot 7 of 1"),
        ({"grants": [pb.Grant(node=[1, 2], attempt=[1])]}, "a grant with different numbers of nodes and attempts"),
    ],
)
def test_a_worker_that_is_told_what_makes_no_sense_leaves_and_says_what_it_was(
    broker: ScriptedBroker, said: dict[str, Any], of: str
) -> None:
    with worker_process(broker) as worker:
        broker.greeted().send(**said)
        code, errors = worker.ended()
    assert code == 1
    assert f": {of}; check that the versions of worker and broker match" in errors
