"""Reports without the attempts that need a large value which could not be sent; the rest fits together as before."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from dagorama.api import broker_pb2 as pb
from dagorama.worker.failures import MESSAGE_BYTES, truncate
from dagorama.worker.frames import Outcome

#: the failure type of an attempt whose large value the broker refused; the same error is raised if a child refuses it
REFUSED = "dagorama.errors.RequestRejected"


def without_value(outcome: Outcome, digest: bytes, why: str) -> Outcome:
    """Return the outcome with a failure in place of each attempt whose value or child nodes need the large value."""
    results = pb.Results.FromString(outcome.body)
    failed = _of_value(results, digest)
    message = truncate(f"a large value that the result needs could not be stored: {why}", MESSAGE_BYTES)
    rest = _without(results, set(failed))
    for attempt, node in failed.items():
        rest.failures.add(node=node, attempt=attempt, type=REFUSED, message=message)
    return outcome._replace(body=rest.SerializeToString())


def split_by_value(outcome: Outcome, digest: bytes, why: str) -> tuple[Outcome, pb.Return]:
    """Return the outcome without the attempts that need the large value, and these as returned, which is uncounted."""
    results = pb.Results.FromString(outcome.body)
    returned = _of_value(results, digest)
    rest = _without(results, set(returned))
    body = rest.SerializeToString()
    given_back = pb.Return(
        node=list(returned.values()), attempt=list(returned), reason=pb.VALUES, detail=truncate(why, MESSAGE_BYTES)
    )
    return outcome._replace(attempts=[a for a in outcome.attempts if a not in returned], body=body), given_back


def waiting_report(outcome: Outcome, digest: bytes, message: str) -> bytes:
    """Return a serialized Results that says of each attempt which needs the large value that it waits."""
    waiting = _of_value(pb.Results.FromString(outcome.body), digest)
    return report_of(waiting.values(), waiting, message)


def report_of(nodes: Iterable[int], attempts: Iterable[int], message: str) -> bytes:
    """Return a serialized Results with a message about attempts."""
    text = truncate(message, MESSAGE_BYTES)
    pairs = zip(nodes, attempts, strict=True)
    reports = [pb.NodeReport(key=node, attempt=attempt, message=text) for node, attempt in pairs]
    return pb.Results(reports=reports).SerializeToString()


def _of_value(results: pb.Results, digest: bytes) -> dict[int, int]:
    """Return the nodes, by attempt, whose values or child nodes need the large value."""
    found = {results.attempt[index]: results.node[index] for index in _users(results, digest)}
    return found | {child.attempt: child.node for child in results.children if digest in child.nodes.large}


def _users(results: pb.Results, digest: bytes) -> list[int]:
    """Return the indexes of the results whose values need the large value."""
    return [of for value, of in zip(results.large, results.large_of, strict=True) if value == digest]


def _without(results: pb.Results, attempts: set[int]) -> pb.Results:
    """Return the report without the values and child nodes of these attempts."""
    kept = [index for index, attempt in enumerate(results.attempt) if attempt not in attempts]
    moved = {index: at for at, index in enumerate(kept)}
    large = [(value, moved[of]) for value, of in zip(results.large, results.large_of, strict=True) if of in moved]
    rest = pb.Results(
        node=[results.node[index] for index in kept],
        attempt=[results.attempt[index] for index in kept],
        value=[results.value[index] for index in kept],
        microseconds=[results.microseconds[index] for index in kept],
        foreign=results.foreign,
        functions=results.functions,
        children=[child for child in results.children if child.attempt not in attempts],
        failures=[failure for failure in results.failures if failure.attempt not in attempts],
        large=[value for value, _ in large],
        large_of=[of for _, of in large],
        logs=results.logs,
        reports=results.reports,
        trace=[trace for trace, of in zip(results.trace, results.trace_of, strict=True) if of in moved],
        trace_of=[moved[of] for of in results.trace_of if of in moved],
    )
    if results.ref_count:
        starts = list(accumulate(results.ref_count, initial=0))
        rest.ref_count.extend([results.ref_count[index] for index in kept])
        rest.ref.extend([ref for index in kept for ref in results.ref[starts[index] : starts[index + 1]]])
    return rest
