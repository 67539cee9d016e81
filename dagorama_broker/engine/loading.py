"""Loads what a submission names and memory lacks, and recognizes what an earlier call has made: load, then decide.

A client whose reply was lost sends its submission again; the nodes are made once, and both calls get the same answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.errors import Conflict, InvalidArgument
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.scheduler import NewNodes, Node

#: Counters that a call makes, by origin: the beginnings of ranges, in order, and the largest end up to each of them.
Made: TypeAlias = dict[bytes, tuple[list[int], list[int]]]


@dataclass(slots=True, eq=False)
class Loaded:
    """The nodes and instances that a call names. A node found unfinished stays valid after its end, unless removed."""

    nodes: dict[bytes, Node] = field(default_factory=dict)
    instances: dict[bytes, StoredInstance] = field(default_factory=dict)  #: instances that memory lacked
    unknown: set[bytes] = field(default_factory=set)  #: ids that were never used
    gone: set[int] = field(default_factory=set)  #: keys of instances that were removed meanwhile

    def without_gone(self) -> Loaded:
        """Return this without what was removed meanwhile, which is unknown now."""
        if self.gone:
            for id in [id for id, node in self.nodes.items() if node.instance.key in self.gone]:
                del self.nodes[id]
                self.unknown.add(id)
            for id in [id for id, stored in self.instances.items() if stored.row.key in self.gone]:
                del self.instances[id]
                self.unknown.add(id)
        return self


class Loading:
    def __init__(self, commits: Commits, lookups: Lookups) -> None:
        self.under_way: set[Loaded] = set()  #: loads that removals must be reported to
        self._commits = commits
        self._lookups = lookups
        self._scheduler = commits.scheduler
        self._store = commits.store

    def from_memory(self, runs: Sequence[NewNodes]) -> Loaded | None:
        """Return all that these runs name if it is in memory; None: it must be loaded."""
        found = Loaded()
        if self.missing_nodes(named_by(runs), found) or self._missing_instances(runs, found):
            return None
        return None if self.is_unsettled(runs) else found

    async def load(self, runs: Sequence[NewNodes], ids: Iterable[bytes] = ()) -> Loaded:
        """Find all that these runs and ids name.

        Nothing changes between the last look and the return: as long as the caller does not await, all that is named
        is in memory, in the answer, or unknown.
        """
        found, named = Loaded(), named_by(runs) | set(ids)
        revivals = self._scheduler.revivals
        self.under_way.add(found)
        try:
            while True:
                if revivals != self._scheduler.revivals:  # a node that had ended when it was read may run again
                    found.nodes.clear()
                    found.instances.clear()
                    revivals = self._scheduler.revivals
                nodes = self.missing_nodes(named, found)
                instances = self._missing_instances(runs, found)
                if not nodes and not instances and not self.is_unsettled(runs):
                    return found.without_gone()
                await self._commits.wait_durable()
                await self.read(nodes, instances, found)
        finally:
            self.under_way.discard(found)

    def missing_nodes(self, named: Iterable[bytes], found: Loaded) -> list[bytes]:
        """Return the nodes that memory lacks; add the others to `found`."""
        missing, find = [], self._scheduler.node
        for id in named:
            if id in found.nodes or id in found.unknown:
                continue
            node = find(id)
            if node is None:
                missing.append(id)
            else:
                found.nodes[id] = node
        return missing

    def _missing_instances(self, runs: Iterable[NewNodes], found: Loaded) -> set[bytes]:
        """Return instances to load: they get more nodes, or are made without nodes and may exist already."""
        live = self._scheduler.instances
        wanted, made = set(), set()
        for run in runs:
            if run.creates is None:
                if run.instance not in live and run.instance not in made:
                    wanted.add(run.instance)
            else:
                made.add(run.instance)
                if not run.function and self._lookups.has_instance(run.instance):
                    wanted.add(run.instance)
        return wanted - found.instances.keys() - found.unknown

    def is_unsettled(self, runs: Iterable[NewNodes]) -> bool:
        """Return whether the runs may repeat something that has left memory and is not in the store yet."""
        scheduler, is_unwritten = self._scheduler, self._commits.is_unwritten
        return any(
            scheduler.is_reserved(run)
            or (is_unwritten(run.origin) and not scheduler.has_origin(run.origin))
            or (run.creates is not None and is_unwritten(run.instance) and run.instance not in scheduler.instances)
            for run in runs
        )

    async def read(self, nodes: Sequence[bytes], instances: Iterable[bytes], found: Loaded) -> None:
        """Read these nodes and instances from the store, and add them to what was found."""
        ended = await self._lookups.find_ended(nodes)
        found.nodes.update(ended)
        found.unknown.update(id for id in nodes if id not in ended)
        for id in instances:
            stored = await self._commits.in_store(self._store.instance, id)
            if stored is None:
                found.unknown.add(id)
            else:
                found.instances[id] = stored

    # --- what was made before -------------------------------------------------------------------------

    def left_to_make(self, runs: Sequence[NewNodes], found: Loaded) -> list[NewNodes]:
        """Return the runs that no earlier call has made. Raises Conflict if one was made with other content."""
        return [run for run in runs if not self.is_made(run, found)]

    def is_made(self, run: NewNodes, found: Loaded) -> bool:
        """Return whether an earlier call has made this run. Raises Conflict if it was made with other content."""
        if not run.function:
            return self._is_made_empty(run, found)
        if run.creates is not None and self._is_new(run):
            return False
        digest = self._made_as(run)
        if digest is not None:
            self._refuse_removed(run)
            if digest != run.digest:
                raise Conflict(f"node {run.origin.hex()}, counter {run.first}, exists already, with other content")
            return True
        if run.creates is not None and self._lookups.has_instance(run.instance):
            self._refuse_removed(run)
            raise _other_instance(run)
        return False

    def refuse_made(self, run: NewNodes) -> None:
        """Raise Conflict if nodes of a run that a worker reports are in the store already: no commit could hold it."""
        stored = self._store.last_run(run.origin, run.first + run.count)
        if stored is not None and stored.first + stored.size > run.first:
            raise Conflict(f"node {run.origin.hex()}, counter {run.first}, exists already")
        if run.creates is not None and self._lookups.has_instance(run.instance):
            raise _other_instance(run)

    def _is_new(self, run: NewNodes) -> bool:
        """Return whether nothing was ever made under the run's ids."""
        scheduler, is_unwritten, id, origin = self._scheduler, self._commits.is_unwritten, run.instance, run.origin
        if scheduler.has_origin(origin) or id in scheduler.instances or is_unwritten(origin) or is_unwritten(id):
            return False
        return self._store.is_new(id, origin)

    def _is_made_empty(self, run: NewNodes, found: Loaded) -> bool:
        """Return whether an instance without nodes was made: it has left no run behind, so compare the instance."""
        if run.creates is None or not self._lookups.has_instance(run.instance):
            return False
        row = found.instances[run.instance].row
        if (row.definition, row.entry) != run.creates:
            raise _other_instance(run)
        return True

    def _refuse_removed(self, run: NewNodes) -> None:
        """Raise NotFound if the instance was removed: a late repetition does not make it again."""
        if self._store.removed(run.instance) is not None:
            raise self._lookups.not_known(run.instance)

    def _made_as(self, run: NewNodes) -> bytes | None:
        """Return the digest of what was made under any of the run's counters; None: nothing was."""
        end = run.first + run.count
        in_memory = self._scheduler.last_run(run.origin, end)
        if in_memory is not None and in_memory.first + in_memory.count > run.first:
            return in_memory.digest
        stored = self._store.last_run(run.origin, end)
        if stored is not None and stored.first + stored.size > run.first:
            return stored.digest
        return None


def _other_instance(run: NewNodes) -> Conflict:
    return Conflict(f"instance {run.instance.hex()} exists already, with other content")


def reject_other_protocol(runs: Iterable[NewNodes], found: Loaded) -> None:
    """Raise InvalidArgument if a node would be given a value that was packed by clients of the other protocol."""
    for run in runs:
        for id in run.foreign:
            node = found.nodes.get(id)
            if node is not None and run.function and node.queue.function.protocol is not run.functions[0].protocol:
                raise InvalidArgument(f"source {id.hex()} was made by the other protocol's calls")


# --- the names in a call ------------------------------------------------------------------------------


def named_by(runs: Sequence[NewNodes]) -> set[bytes]:
    """Return the ids of sources that the runs do not make themselves."""
    named, made = set[bytes](), made_by(runs)
    for run in runs:
        named |= named_by_one(run, made)
    return named


def named_by_one(run: NewNodes, made: Made) -> set[bytes]:
    """Return the ids of a run's sources that the call does not make itself."""
    named = {id for id in run.foreign if not _is_made(made, id[:12], int.from_bytes(id[12:], "big"))}
    if run.sources is not None and run.first:
        earlier = {ref for refs in run.sources for ref in refs if 0 <= ref < run.first}
        named |= {run.origin + ref.to_bytes(4, "big") for ref in earlier if not _is_made(made, run.origin, ref)}
    return named


def made_by(runs: Iterable[NewNodes]) -> Made:
    """Return the counters that a call makes, by origin."""
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    for run in runs:
        if run.function:
            ranges.setdefault(run.origin, []).append((run.first, run.first + run.count))
    made: Made = {}
    for origin, of_origin in ranges.items():
        of_origin.sort()
        # Overlapping ranges are refused later; here the one with the larger end stands for both.
        made[origin] = [first for first, _ in of_origin], list(accumulate([end for _, end in of_origin], max))
    return made


def _is_made(made: Made, origin: bytes, counter: int) -> bool:
    if origin not in made:
        return False
    firsts, ends = made[origin]
    place = bisect_right(firsts, counter) - 1
    return place >= 0 and counter < ends[place]
