"""Reports that name a large value which the broker does not take: the attempts that made it fail, the others stand."""

from __future__ import annotations

from itertools import accumulate

from dagorama.api import broker_pb2 as pb
from dagorama.worker.failures import MESSAGE_BYTES, bounded
from dagorama.worker.frames import Outcome

#: the type of such a failure, which is also what a value that is refused here raises
REFUSED = "dagorama.errors.RefusedByBroker"


def without_value(outcome: Outcome, digest: bytes, why: str) -> Outcome:
    """The same outcome, where each attempt whose value, or whose nodes, would need that large value has failed."""
    results = pb.Results.FromString(outcome.body)
    spoiled = {results.attempt[place]: results.node[place] for place in _places(results, digest)}
    spoiled |= {child.attempt: child.node for child in results.children if digest in child.nodes.large}
    message = bounded(f"a large value that its result needs could not be stored: {why}", MESSAGE_BYTES)
    rest = _without(results, set(spoiled))
    for attempt, node in spoiled.items():
        rest.failures.add(node=node, attempt=attempt, type=REFUSED, message=message)
    return outcome._replace(body=rest.SerializeToString())


def _places(results: pb.Results, digest: bytes) -> list[int]:
    return [of for sha256, of in zip(results.large, results.large_of, strict=True) if sha256 == digest]


def _without(results: pb.Results, attempts: set[int]) -> pb.Results:
    """The report without what these attempts completed with and made."""
    kept = [place for place, attempt in enumerate(results.attempt) if attempt not in attempts]
    moved = {place: at for at, place in enumerate(kept)}
    large = [(s, moved[of]) for s, of in zip(results.large, results.large_of, strict=True) if of in moved]
    rest = pb.Results(
        node=[results.node[place] for place in kept],
        attempt=[results.attempt[place] for place in kept],
        value=[results.value[place] for place in kept],
        microseconds=[results.microseconds[place] for place in kept],
        foreign=results.foreign,
        functions=results.functions,
        children=[child for child in results.children if child.attempt not in attempts],
        failures=[failure for failure in results.failures if failure.attempt not in attempts],
        large=[sha256 for sha256, _ in large],
        large_of=[of for _, of in large],
    )
    if results.ref_count:
        starts = list(accumulate(results.ref_count, initial=0))
        rest.ref_count.extend([results.ref_count[place] for place in kept])
        rest.ref.extend([ref for place in kept for ref in results.ref[starts[place] : starts[place + 1]]])
    return rest
