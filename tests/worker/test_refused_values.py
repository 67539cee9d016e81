"""A report without the attempts that a refused value has spoiled: what is left fits together as before."""

from dagorama.api import broker_pb2 as pb
from dagorama.worker.frames import Outcome
from dagorama.worker.supervisor.reduced_reports import without_value

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
