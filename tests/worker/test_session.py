"""A session says everything once, and again where it may have been lost. No IO."""

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.worker.supervisor.session import MESSAGE_BYTES, Backoff, Held, Session


@pytest.fixture
def session() -> Session:
    """Its stream is open, its hello has been said."""
    made = Session(pb.Hello(protocol=1, worker=b"w" * 16, slots=2))
    made.open([])
    made.next_message()
    return made


def said(session: Session) -> pb.WorkerMessage:
    message = session.next_message()
    assert message is not None
    return message


def report(session: Session, attempt: int, body: bytes = b"results") -> None:
    session.report(Held(0, [attempt + 100], [attempt]), body)


def held_by(message: pb.WorkerMessage) -> set[tuple[int, int, int]]:
    hello = message.hello
    return set(zip(hello.held_node, hello.held_attempt, hello.held_slot, strict=True))


def test_hello_comes_first_and_alone_and_presents_what_is_held() -> None:
    session = Session(pb.Hello(protocol=1, worker=b"w" * 16, slots=2))
    report(session, 1)
    session.open([Held(1, [207, 208], [7, 8])])
    first = said(session)
    assert held_by(first) == {(207, 7, 1), (208, 8, 1), (101, 1, 0)}
    assert not first.reports
    assert [each.sequence for each in said(session).reports] == [1]
    assert session.next_message() is None


def test_all_that_has_gathered_goes_in_one_message(session: Session) -> None:
    report(session, 1)
    report(session, 2)
    session.give_back(1, pb.Return(node=[103], attempt=[3]))
    session.died(Held(0, [104], [4]), pb.SlotDeath(slot=0, running=[4], cause="killed by SIGSEGV"))
    session.beat()
    message = said(session)
    assert [each.sequence for each in message.reports] == [1, 2]
    assert [list(each.attempt) for each in message.returns] == [[3]]
    assert [list(each.running) for each in message.deaths] == [[4]]
    assert message.heartbeat
    assert session.next_message() is None


def test_reports_are_said_again_on_a_new_stream_until_they_are_acknowledged(session: Session) -> None:
    for attempt in (1, 2, 3):
        report(session, attempt)
    said(session)
    session.receive(pb.BrokerMessage(acknowledged=1))
    session.open([])
    assert held_by(said(session)) == {(102, 2, 0), (103, 3, 0)}
    assert [each.sequence for each in said(session).reports] == [2, 3]
    session.receive(pb.BrokerMessage(acknowledged=3))
    session.open([])
    assert not held_by(said(session))
    assert session.next_message() is None


def test_what_was_not_said_before_the_stream_broke_is_presented_as_held_and_then_said(session: Session) -> None:
    session.give_back(1, pb.Return(node=[103], attempt=[3]))
    session.died(Held(0, [104], [4]), pb.SlotDeath(slot=0, running=[4]))
    session.open([])
    assert held_by(said(session)) == {(103, 3, 1), (104, 4, 0)}
    message = said(session)
    assert message.returns
    assert message.deaths


def test_no_message_outgrows_what_grpc_takes(session: Session) -> None:
    body = bytes(MESSAGE_BYTES // 4)
    for attempt in range(6):
        report(session, attempt, body)
    messages = [said(session), said(session)]
    assert [each.sequence for message in messages for each in message.reports] == [1, 2, 3, 4, 5, 6]
    assert all(message.ByteSize() <= MESSAGE_BYTES + 100 for message in messages)


def test_one_report_that_fills_a_message_alone_still_goes(session: Session) -> None:
    report(session, 1, bytes(MESSAGE_BYTES + 1))
    assert len(said(session).reports) == 1


def test_draining_is_said_once_on_each_stream(session: Session) -> None:
    session.drain()
    assert said(session).draining
    assert session.next_message() is None
    session.open([])
    said(session)
    assert said(session).draining


def test_a_session_is_settled_when_all_is_said_and_acknowledged(session: Session) -> None:
    assert session.settled
    report(session, 1)
    assert not session.settled
    said(session)
    assert not session.settled
    session.receive(pb.BrokerMessage(acknowledged=1))
    assert session.settled
    assert session.unacknowledged == 0


def test_done_and_welcome_are_noted_and_a_new_stream_needs_its_own_welcome(session: Session) -> None:
    session.receive(pb.BrokerMessage(welcome=pb.Welcome(heartbeat=10), done=True))
    assert session.welcome is not None
    assert session.done
    session.open([])
    assert session.welcome is None
    assert session.done


def test_pauses_double_up_to_a_cap_and_start_over_after_success() -> None:
    backoff = Backoff(first=0.1, cap=0.3)
    assert [backoff.pause(chance=1) for _ in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    backoff.reset()
    assert backoff.pause(chance=0) == pytest.approx(0.05)


def test_a_slot_that_is_gone_is_said_after_what_it_had_to_say_and_again_on_the_next_stream(session: Session) -> None:
    session.close_slot(1)
    session.give_back(1, pb.Return(node=[1], attempt=[2]))
    message = said(session)
    assert (len(message.returns), list(message.closed_slots)) == (1, [1])
    assert session.next_message() is None
    session.close_slot(0)
    assert list(said(session).closed_slots) == [0]
    session.open([])
    said(session)
    assert list(said(session).closed_slots) == [0, 1]
