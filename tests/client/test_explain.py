"""What a timeout says of nodes that will end by themselves, in words."""

from __future__ import annotations

from time import localtime, strftime

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.client.explain import ended_workers, reasons, reporting
from tests.support.recording_broker import RecordingBroker

AT = 1_700_000_000.0
TIME = strftime("%Y-%m-%d %H:%M:%S", localtime(AT))
ONE = {b"n" * 16: b"i" * 16}


def unservable(count: int, name: str = "work:Task.gpu", reason: str = "no worker is connected") -> pb.Unschedulable:
    return pb.Unschedulable(function=pb.Function(name=name), queued=count, reason=reason)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (pb.ExplainReply(), ""),
        (pb.ExplainReply(running=1, worker="host:7"), "it is still running on host:7"),
        (pb.ExplainReply(queued=1), "it is queued: the workers that may run it have other work"),
        (pb.ExplainReply(delayed=1, retry_at=AT), f"it waits for its next run at {TIME}"),
        (
            pb.ExplainReply(waiting=2, running=1, queued=1200, worker="host:7"),
            "of the nodes that it takes 1 is running on host:7, 1,200 are queued",
        ),
        (
            pb.ExplainReply(waiting=1, running=3, delayed=1, retry_at=AT, worker="host:7", more=True),
            "of the nodes that it takes at least 3 are running, one of them on host:7, "
            f"at least 1 is delayed, the next until {TIME}",
        ),
        (
            pb.ExplainReply(waiting=1, running=3, worker="host:7", unschedulable=[unservable(2000)]),
            "2,000 queued nodes of work:Task.gpu cannot run: no worker is connected",
        ),
        (
            pb.ExplainReply(unschedulable=[unservable(1, f"f{number}", "r") for number in range(7)]),
            "; ".join(f"1 queued node of f{number} cannot run: r" for number in range(5))
            + "; and 2 more functions cannot run",
        ),
    ],
)
def test_a_reason_says_how_the_nodes_stand(broker: RecordingBroker, reply: pb.ExplainReply, text: str) -> None:
    broker.explanation = reply
    assert reasons(ONE).text == text


def test_a_count_that_changes_is_no_other_reason(broker: RecordingBroker) -> None:
    known = []
    for count in (1, 2):
        broker.explanation = pb.ExplainReply(unschedulable=[unservable(count)])
        known.append(reasons(ONE).known)
    assert known[0] == known[1] != frozenset()


def test_an_older_broker_that_cannot_say_is_no_error(broker: RecordingBroker) -> None:
    broker.explanation = None
    assert reasons(ONE).text == ""


def test_a_broker_that_is_not_there_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    assert reasons(ONE).text == "the broker at 127.0.0.1:1 does not answer (UNAVAILABLE)"


def test_workers_that_were_launched_here_and_have_ended_are_named(broker: RecordingBroker) -> None:
    broker.explanation = pb.ExplainReply(unschedulable=[unservable(1)])
    with reporting(lambda: "the workers have ended"):
        assert reasons(ONE).text == (
            "1 queued node of work:Task.gpu cannot run: no worker is connected; the workers have ended"
        )
        broker.explanation = pb.ExplainReply(running=1, worker="host:7")
        assert reasons(ONE).text == "it is still running on host:7; the workers have ended"
        with reporting(lambda: ""):
            assert ended_workers() == "", "others are alive"
    assert ended_workers() == ""
