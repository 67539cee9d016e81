"""Read grants: turn a message of nodes into calls, without running user code and without unpickling anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_FOUND, TO_RUN
from dagorama.values.signing import Keyring, SignedValues
from dagorama.worker.child.call import Call, Values, Work


class GrantReader:
    """Turns grants into calls. Calls of the same function share one Work."""

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring
        self._works: dict[tuple[object, ...], Work] = {}

    def calls(self, grant: pb.GrantBody) -> list[Call]:
        """Return the nodes of a grant in order."""
        works = [self._work(function) for function in grant.functions]
        instances = list(grant.instances)
        count = len(grant.node)
        columns = zip(
            grant.node, grant.attempt, grant.function, grant.id, grant.instance, grant.arguments,
            grant.failed_attempts or repeat(0, count), grant.made_with or repeat("", count),
            chain(_fused(grant), repeat((), count - len(grant.fused_source))),
            chain(grant.rebinding, repeat(0, count - len(grant.rebinding))), strict=True,
        )  # fmt: skip
        values, rebindings = self._values(grant), [None, *grant.rebindings]
        calls = [
            Call(
                node, attempt, works[function], id, instances[instance], arguments, values, runs, made_with, beside,
                rebindings[rebinding],
            )
            for node, attempt, function, id, instance, arguments, runs, made_with, beside, rebinding in columns
        ]  # fmt: skip
        if grant.cache:
            calls = list(_looked_up(calls, grant))
        return _traced(calls, grant) if grant.traces else calls

    def look_again(self) -> None:
        """Search again for functions that could not be found, when they are next needed: classes were added."""
        for work in self._works.values():
            work.unusable = None

    def _values(self, grant: pb.GrantBody) -> Values:
        received = dict(zip(grant.value_id, grant.value, strict=True))
        ids = dict(zip(grant.value_node, grant.value_id, strict=True)) if grant.failed else {}
        failed = {ids[key]: received.pop(ids[key]) for key in grant.failed}
        return Values(SignedValues(self._ring, received), failed)

    def _work(self, function: pb.Function) -> Work:
        key = (
            function.name,
            function.hash,
            function.class_code,
            function.timeout,
            function.key_id,
            function.stream_children,
            function.queue,
            function.taint,
            function.cached,
        )
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = Work(function)
        return work


def _fused(grant: pb.GrantBody) -> Iterator[Sequence[int]]:
    """Yield for each node, up to the last one that has any, its sources that are granted with it."""
    more = iter(grant.more_fused)
    counts = chain(grant.more_fused_count, repeat(0))
    for source, count in zip(grant.fused_source, counts, strict=False):
        yield (source, *islice(more, count)) if source else ()


def _looked_up(calls: list[Call], grant: pb.GrantBody) -> Iterator[Call]:
    """Yield the calls with what the broker says of their cache keys."""
    announced_keys = chain(grant.announced_key, repeat(b""))
    for call, known, announced in zip(calls, chain(grant.cache, repeat(0)), announced_keys, strict=False):
        found = grant.found[known - FIRST_FOUND] if known >= FIRST_FOUND else None
        yield call._replace(to_run=known == TO_RUN, found=found, announced=announced) if known or announced else call


def _traced(calls: list[Call], grant: pb.GrantBody) -> list[Call]:
    """Return the calls with their trace contexts."""
    traces, links = ["", *grant.traces], dict(zip(grant.linked, grant.link, strict=True))
    contexts = chain(grant.trace, repeat(0, len(calls) - len(grant.trace)))
    counts = grant.source_count or repeat(0, len(calls))
    sources, found = iter(grant.source), list[Call]()
    for call, context, count in zip(calls, contexts, counts, strict=False):
        own = [links[source] for source in islice(sources, count) if source in links]
        found.append(call._replace(trace=traces[context], links=own) if context else call)
    return found
