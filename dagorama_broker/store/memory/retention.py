"""Ends, links and removals of the instances of a store in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import Any

from dagorama_broker.model.rows import InstanceEnd, LinkRow, RemovedRow
from dagorama_broker.store.protocol import REMEMBERED


class MemoryRetention:
    """Which instances have ended, which refer to which, and which were removed."""

    def __init__(self) -> None:
        self._ends: dict[int, InstanceEnd] = {}  #: of instances that have ended
        #: by failed; without the instances that others refer to
        self._in_order: dict[bool, list[tuple[float, int]]] = {False: [], True: []}
        self._links: dict[int, set[int]] = {}  #: instances that an instance refers to
        self._named: dict[int, set[int]] = {}  #: instances that refer to an instance
        # Finding the first entry of a plain dict takes time for each entry that was deleted before it.
        self._removed: OrderedDict[bytes, RemovedRow] = OrderedDict()  #: oldest removal first
        self._leftovers: OrderedDict[int, None] = OrderedDict()

    # --- ends and links -------------------------------------------------------------------------------

    def end(self, end: InstanceEnd) -> None:
        """Note that an instance has ended, or has an unfinished node again."""
        self._take_out(end.key)
        self._ends.pop(end.key, None)
        if end.ended is not None:
            self._ends[end.key] = end
            self._put_in(end.key)

    def link(self, rows: Iterable[LinkRow]) -> None:
        """Note that instances refer to other instances."""
        for instance, named in rows:
            links = self._links.setdefault(instance, set())
            if named not in links:
                links.add(named)
                self._take_out(named)
                self._named.setdefault(named, set()).add(instance)

    def expired(self, failed: bool, before: float, most: int) -> list[int]:
        """Return keys of instances that ended up to then, oldest end first, without instances that others refer to."""
        in_order = self._in_order[failed]
        return [key for ended, key in in_order[:most] if ended <= before]

    def named(self, after: int, most: int) -> list[int]:
        """Return keys of ended instances that others refer to, in their order."""
        return nsmallest(most, (key for key in list(self._named) if key > after and key in self._ends))

    def naming(self, key: int) -> list[int]:
        """Return keys of the instances that refer to this one."""
        return list(self._named.get(key, ()))

    def _put_in(self, key: int) -> None:
        end = self._ends.get(key)
        if end is not None and end.ended is not None and key not in self._named:
            insort(self._in_order[end.failed], (end.ended, key))

    def _take_out(self, key: int) -> None:
        end = self._ends.get(key)
        if end is not None and end.ended is not None and key not in self._named:
            in_order = self._in_order[end.failed]
            del in_order[bisect_left(in_order, (end.ended, key))]

    # --- removal --------------------------------------------------------------------------------------

    def remove(self, rows: Sequence[RemovedRow]) -> None:
        """Note that instances were removed; their rows are left over."""
        self._take_out_all(row.key for row in rows)
        for row in rows:
            self._removed[row.id] = row
            self._leftovers[row.key] = None
            if len(self._removed) > REMEMBERED:
                self._removed.popitem(last=False)
        for row in rows:
            self._unlink(row.key)

    def _take_out_all(self, keys: Iterable[int]) -> None:
        """Forget the ends of instances; neighbours in the order are deleted together."""
        places: dict[bool, list[int]] = {False: [], True: []}
        for key in keys:
            end = self._ends.pop(key, None)
            if end is not None and end.ended is not None and key not in self._named:
                places[end.failed].append(bisect_left(self._in_order[end.failed], (end.ended, key)))
        for failed, found in places.items():
            delete_places(self._in_order[failed], found)

    def _unlink(self, key: int) -> None:
        for named in self._links.pop(key, ()):
            self._named[named].discard(key)
            if not self._named[named]:
                del self._named[named]
                self._put_in(named)

    def removed(self, id: bytes) -> RemovedRow | None:
        """Return the record of a removed instance."""
        return self._removed.get(id)

    @property
    def removed_ids(self) -> Iterable[bytes]:
        """The IDs of removed instances, as far as they are remembered."""
        return self._removed.keys()

    def is_left_over(self, instance: int) -> bool:
        """Return whether an instance was removed and still has rows."""
        return instance in self._leftovers

    def leftover(self) -> int | None:
        """Return a removed instance that still has rows; None if there is none."""
        return next(iter(self._leftovers), None)

    def is_swept(self, instance: int) -> None:
        """Note that all rows of a removed instance are deleted."""
        del self._leftovers[instance]


def delete_places(items: list[Any], places: Iterable[int]) -> None:
    """Delete the items at these indexes, contiguous ones together, so that the items behind them move only once."""
    first = end = -1
    for place in sorted(places, reverse=True):
        if place != first - 1:
            if end > 0:
                del items[first:end]
            end = place + 1
        first = place
    if end > 0:
        del items[first:end]
