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
from dagorama_broker.engine.looks import Looks
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.engine.retention_policy import not_known
from dagorama_broker.errors import Conflict, InvalidArgument
from dagorama_broker.model.looks import Known
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.scheduler import NewNodes, Node

#: Counters that a call makes, by origin: the beginnings of ranges, in order, and the largest end up to each of them.
Made: TypeAlias = dict[bytes, tuple[list[int], list[int]]]


@dataclass(slots=True, eq=False)
class Loaded:
    """The nodes and instances that a call names. A node found unfinished stays valid after its end, unless removed."""

    known: Known  #: the store, or its answer
    nodes: dict[bytes, Node] = field(default_factory=dict)
    instances: dict[bytes, StoredInstance] = field(default_factory=dict)  #: instances that memory lacked
    unknown: set[bytes] = field(default_factory=set)  #: IDs that were never used
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
        self.looks = Looks(commits)
        self.under_way: set[Loaded] = set()  #: loads that removals must be reported to
        self._commits = commits
        self._lookups = lookups
        self._scheduler = commits.scheduler
        self._store = commits.store

    def from_memory(self, blocks: Sequence[NewNodes]) -> Loaded | None:
        """Return all that these blocks name if it is in memory, or known to be new; None: it must be loaded."""
        known = self._store if self._store.near else self.looks.without_asking(blocks)
        if known is None:
            return None
        found = Loaded(known)
        if self.missing_nodes(named_by(blocks), found) or self._missing_instances(blocks, found):
            return None
        return None if self.is_unsettled(blocks) else found

    async def load(self, blocks: Sequence[NewNodes], ids: Iterable[bytes] = ()) -> Loaded:
        """Find all that these blocks and IDs name.

        Nothing changes between the last look and the return: as long as the caller does not await, all that is named
        is in memory, in the answer, or unknown.
        """
        async with self.looks.at(blocks) as known:
            return await self._loaded(blocks, named_by(blocks) | set(ids), known)

    async def _loaded(self, blocks: Sequence[NewNodes], named: set[bytes], known: Known) -> Loaded:
        found = Loaded(known)
        revivals = self._scheduler.revivals
        self.under_way.add(found)
        try:
            while True:
                if revivals != self._scheduler.revivals:  # a node that had ended when it was read may run again
                    found.nodes.clear()
                    found.instances.clear()
                    revivals = self._scheduler.revivals
                nodes = self.missing_nodes(named, found)
                instances = self._missing_instances(blocks, found)
                if not nodes and not instances and not self.is_unsettled(blocks):
                    return found.without_gone()
                await self._commits.wait_durable()
                await self.read(nodes, instances, found)
        finally:
            self.under_way.discard(found)

    async def look(self, blocks: Sequence[NewNodes]) -> Loaded:
        """Find out what the store knows of these blocks: true as long as the caller does not await."""
        async with self.looks.at(blocks) as known:
            return Loaded(known)

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

    def _missing_instances(self, blocks: Iterable[NewNodes], found: Loaded) -> set[bytes]:
        """Return instances to load: they get more nodes, or are made without nodes and may exist already."""
        live = self._scheduler.instances
        wanted, made = set(), set()
        for block in blocks:
            if block.creates is None:
                if block.instance not in live and block.instance not in made:
                    wanted.add(block.instance)
            else:
                made.add(block.instance)
                if not block.function and self._lookups.has_instance(block.instance, found.known):
                    wanted.add(block.instance)
        return wanted - found.instances.keys() - found.unknown

    def is_unsettled(self, blocks: Iterable[NewNodes]) -> bool:
        """Return whether the blocks may repeat something that has left memory and is not in the store yet."""
        scheduler, is_unwritten = self._scheduler, self._commits.is_unwritten
        return any(
            scheduler.is_reserved(block)
            or (is_unwritten(block.origin) and not scheduler.has_origin(block.origin))
            or (
                block.creates is not None and is_unwritten(block.instance) and block.instance not in scheduler.instances
            )
            for block in blocks
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
                hooks = await self._commits.in_store(self._store.hooks, [stored.row.key])
                found.instances[id] = stored._replace(hook=hooks.get(stored.row.key))

    # --- what was made before -------------------------------------------------------------------------

    def left_to_make(self, blocks: Sequence[NewNodes], found: Loaded) -> list[NewNodes]:
        """Return the blocks that no earlier call has made. Raises Conflict if one was made with other content."""
        return [block for block in blocks if not self.is_made(block, found)]

    def is_made(self, block: NewNodes, found: Loaded) -> bool:
        """Return whether an earlier call has made this block. Raises Conflict if it was made with other content."""
        if not block.function:
            return self._is_made_empty(block, found)
        known = found.known
        if block.creates is not None and self._is_new(block, known):
            return False
        digest = self._made_as(block, known)
        if digest is not None:
            self._refuse_removed(block, known)
            if digest != block.digest:
                raise Conflict(f"node {block.origin.hex()}, counter {block.first}, exists already, with other content")
            return True
        if block.creates is not None and self._lookups.has_instance(block.instance, known):
            self._refuse_removed(block, known)
            raise _other_instance(block)
        return False

    def refuse_made(self, block: NewNodes, known: Known) -> None:
        """Raise Conflict if nodes of a block that a worker reports are stored already: no commit could hold it."""
        stored = known.last_block(block.origin, block.first + block.count)
        if stored is not None and stored.first + stored.size > block.first:
            raise Conflict(f"node {block.origin.hex()}, counter {block.first}, exists already")
        if block.creates is not None and self._lookups.has_instance(block.instance, known):
            raise _other_instance(block)

    def _is_new(self, block: NewNodes, known: Known) -> bool:
        """Return whether nothing was ever made under the block's IDs."""
        scheduler, is_unwritten, id, origin = self._scheduler, self._commits.is_unwritten, block.instance, block.origin
        if scheduler.has_origin(origin) or id in scheduler.instances or is_unwritten(origin) or is_unwritten(id):
            return False
        return not self.looks.may_have(id, origin) or known.is_new(id, origin)

    def _is_made_empty(self, block: NewNodes, found: Loaded) -> bool:
        """Return whether an instance without nodes was made: it has left no run behind, so compare the instance."""
        if block.creates is None or not self._lookups.has_instance(block.instance, found.known):
            return False
        row = found.instances[block.instance].row
        if (row.definition, row.entry) != block.creates:
            raise _other_instance(block)
        return True

    def _refuse_removed(self, block: NewNodes, known: Known) -> None:
        """Raise NotFound if the instance was removed: a late repetition does not make it again."""
        if (removed := known.removed(block.instance)) is not None:
            raise not_known(block.instance, removed, self._lookups.keeping)

    def _made_as(self, block: NewNodes, known: Known) -> bytes | None:
        """Return the digest of what was made under any of the block's counters; None: nothing was."""
        end = block.first + block.count
        in_memory = self._scheduler.last_block(block.origin, end)
        if in_memory is not None and in_memory.first + in_memory.count > block.first:
            return in_memory.digest
        stored = known.last_block(block.origin, end)
        if stored is not None and stored.first + stored.size > block.first:
            return stored.digest
        return None


def _other_instance(block: NewNodes) -> Conflict:
    return Conflict(f"instance {block.instance.hex()} exists already, with other content")


def reject_other_protocol(blocks: Iterable[NewNodes], found: Loaded) -> None:
    """Raise InvalidArgument if a node would be given a value that was packed by clients of the other protocol."""
    for block in blocks:
        for id in block.foreign:
            node = found.nodes.get(id)
            if node is not None and block.function and node.queue.function.protocol is not block.functions[0].protocol:
                raise InvalidArgument(f"source {id.hex()} was made by the other protocol's calls")


# --- the names in a call ------------------------------------------------------------------------------


def named_by(blocks: Sequence[NewNodes]) -> set[bytes]:
    """Return the IDs of sources that the blocks do not make themselves."""
    named, made = set[bytes](), made_by(blocks)
    for block in blocks:
        named |= named_by_one(block, made)
    return named


def named_by_one(block: NewNodes, made: Made) -> set[bytes]:
    """Return the IDs of a block's sources that the call does not make itself."""
    named = {id for id in block.foreign if not _is_made(made, id[:12], int.from_bytes(id[12:], "big"))}
    if block.sources is not None and block.first:
        earlier = {ref for refs in block.sources for ref in refs if 0 <= ref < block.first}
        named |= {block.origin + ref.to_bytes(4, "big") for ref in earlier if not _is_made(made, block.origin, ref)}
    return named


def made_by(blocks: Iterable[NewNodes]) -> Made:
    """Return the counters that a call makes, by origin."""
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    for block in blocks:
        if block.function:
            ranges.setdefault(block.origin, []).append((block.first, block.first + block.count))
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
