"""What a worker proves with: kept while something of a grant is held, presented on the next stream, bounded."""

from hashlib import sha256

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.worker.supervisor.proofs import CLEANUP_SLACK_ATTEMPTS, MAX_PRESENTED_ATTEMPTS, Proofs, new_identity
from dagorama.worker.supervisor.session import Held, Session


def grant(*attempts: int, proof: bytes = b"proof") -> pb.Grant:
    return pb.Grant(node=[attempt + 100 for attempt in attempts], attempt=attempts, proof=proof, last=True)


def presented(session: Session, *held: int) -> list[list[int]]:
    """The attempts of each grant that the hello of the next stream has."""
    session.open([Held(0, [attempt + 100 for attempt in held], list(held))])
    message = session.next_message()
    assert message is not None
    assert all(list(each.node) == [attempt + 100 for attempt in each.attempt] for each in message.hello.grants)
    return [list(each.attempt) for each in message.hello.grants]


@pytest.fixture
def session() -> Session:
    return Session(pb.Hello(protocol=1, worker=b"w" * 16, slots=2))


def test_an_id_is_the_beginning_of_the_hash_of_the_secret() -> None:
    worker, secret = new_identity()
    assert (len(secret), worker) == (32, sha256(secret).digest()[:16])
    assert new_identity() != (worker, secret)


def test_a_first_hello_presents_nothing(session: Session) -> None:
    assert presented(session) == []


def test_grants_of_which_something_is_held_are_presented_whole_as_they_were_received(session: Session) -> None:
    session.receive(pb.BrokerMessage(grants=[grant(1, 2, proof=b"a"), grant(3, proof=b"b")]))
    session.receive(pb.BrokerMessage(grants=[grant(4, 5, 6, proof=b"c")]))
    assert presented(session, 2, 5) == [[1, 2], [4, 5, 6]]
    session.open([Held(0, [105], [5])])
    message = session.next_message()
    assert message is not None
    assert [each.proof for each in message.hello.grants] == [b"c"]


def test_what_is_reported_and_not_acknowledged_is_held(session: Session) -> None:
    session.receive(pb.BrokerMessage(grants=[grant(1), grant(2)]))
    session.report(Held(0, [101], [1]), b"results")
    assert presented(session) == [[1]]
    session.receive(pb.BrokerMessage(acknowledged=1))
    assert presented(session) == []


def test_a_grant_of_which_nothing_is_held_is_forgotten(session: Session) -> None:
    session.receive(pb.BrokerMessage(grants=[grant(1)]))
    assert presented(session) == []
    assert presented(session, 1) == []


def test_pieces_of_a_grant_that_come_before_the_last_count_for_nothing(session: Session) -> None:
    session.receive(pb.BrokerMessage(grants=[pb.Grant(body=b"piece"), grant(1)]))
    assert presented(session, 1) == [[1]]


def test_what_is_over_is_forgotten_while_the_stream_lasts(session: Session) -> None:
    session.open([])
    for attempt in range(1, 3 * CLEANUP_SLACK_ATTEMPTS):
        session.receive(pb.BrokerMessage(grants=[grant(attempt)]))
        if session.keeps_too_much:
            session.tidy([Held(0, [101], [1])])
            assert not session.keeps_too_much
    assert [1] in presented(session, 1, 2, 3 * CLEANUP_SLACK_ATTEMPTS - 1)


def test_presented_grants_are_bounded_and_those_that_name_fewest_attempts_go_first() -> None:
    proofs = Proofs()
    proofs.note([grant(*range(1, MAX_PRESENTED_ATTEMPTS + 1)), grant(MAX_PRESENTED_ATTEMPTS + 1)])
    found = proofs.presented({1, MAX_PRESENTED_ATTEMPTS + 1})
    assert [list(each.attempt) for each in found] == [[MAX_PRESENTED_ATTEMPTS + 1]]
