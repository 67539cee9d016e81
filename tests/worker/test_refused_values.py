"""A report without the attempts that a refused value has spoiled: what is left fits together as before."""

from dagorama.api import broker_pb2 as pb
from dagorama.errors import ValuesUnavailable
from dagorama.values.signing import SignedValues, keyring
from dagorama.worker.child.call import Call, Values, Work
from dagorama.worker.child.exceptions import report_exception
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.supervisor.reduced_reports import split_by_value, waiting_report, without_value

BAD, GOOD = b"b" * 32, b"g" * 32


def spoiled(results: pb.Results) -> pb.Results:
    outcome = Outcome(list(results.attempt), [BAD, GOOD], results.SerializeToString())
    return pb.Results.FromString(without_value(outcome, BAD, "too large").body)


def test_columns_of_the_others_stay_together() -> None:
    left = spoiled(
        pb.Results(
            node=[1, 2, 3], attempt=[11, 12, 13], value=[b"a", b"b", b"c"], microseconds=[5, 6, 7],
            ref_count=[2, 1, 1], ref=[0, -1, 4, -2], foreign=[bytes(16), bytes(16)], large=[BAD, GOOD, BAD],
            large_of=[1, 2, 1], failures=[pb.Failure(node=4, attempt=14)],
        )
    )  # fmt: skip
    assert (list(left.node), list(left.attempt), list(left.value)) == ([1, 3], [11, 13], [b"a", b"c"])
    assert (list(left.microseconds), list(left.ref_count), list(left.ref)) == ([5, 7], [2, 1], [0, -1, -2])
    assert (list(left.large), list(left.large_of), len(left.foreign)) == ([GOOD], [1], 2)
    assert [(failure.node, failure.attempt) for failure in left.failures] == [(4, 14), (2, 12)]


def test_an_attempt_fails_for_an_argument_of_a_node_that_it_made() -> None:
    def child(attempt: int, *large: bytes) -> pb.Children:
        return pb.Children(node=attempt - 10, attempt=attempt, nodes=pb.Nodes(large=large))

    left = spoiled(
        pb.Results(
            node=[1, 2], attempt=[11, 12], value=[b"a", b"b"], microseconds=[5, 6],
            children=[child(11, BAD), child(11), child(12, GOOD), child(13, BAD)],
        )
    )  # fmt: skip
    assert list(left.attempt) == [12]
    assert [each.attempt for each in left.children] == [12]
    assert [failure.attempt for failure in left.failures] == [11, 13], "the last one still runs"


def test_attempts_whose_value_cannot_be_stored_now_are_given_back_and_the_others_stay() -> None:
    results = pb.Results(
        node=[1, 2], attempt=[11, 12], value=[b"a", b"b"], microseconds=[5, 6], large=[BAD, GOOD], large_of=[0, 1],
        children=[pb.Children(node=3, attempt=13, nodes=pb.Nodes(large=[BAD]))],
    )  # fmt: skip
    outcome = Outcome([11, 12], [BAD, GOOD], results.SerializeToString())
    rest, returned = split_by_value(outcome, BAD, "the store is away")
    left = pb.Results.FromString(rest.body)
    assert (rest.attempts, list(left.attempt), list(left.large), list(left.large_of)) == ([12], [12], [GOOD], [0])
    assert not left.failures
    assert (list(returned.node), list(returned.attempt)) == ([1, 3], [11, 13])
    assert (returned.reason, returned.detail) == (pb.VALUES, "the store is away")
    said = pb.Results.FromString(waiting_report(outcome, BAD, "waits"))
    assert [(report.key, report.attempt, report.message) for report in said.reports] == [
        (1, 11, "waits"),
        (3, 13, "waits"),
    ]


def test_a_node_of_this_process_that_cannot_reach_the_store_is_given_back() -> None:
    sent: list[tuple[Kind, Outcome]] = []
    outbox = Outbox(lambda kind, outcome: sent.append((kind, outcome)))
    values = Values(SignedValues(keyring(), {}), {})
    call = Call(1, 11, Work(pb.Function(name="work:Task.leaf")), bytes(16), bytes(16), b"", values)
    report_exception(outbox, keyring(), call, ValuesUnavailable("the store is away"), 5)
    outbox.flush()
    [(kind, outcome)] = sent
    returned = pb.Return.FromString(outcome.body)
    assert (kind, returned.reason, returned.detail) == (Kind.RETURN, pb.VALUES, "the store is away")
