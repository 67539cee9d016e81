"""Mailboxes of unfinished instances: which nodes wait for signals, which signals are kept, which keys are known."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import NamedTuple

from dagorama_broker.errors import utc_text
from dagorama_broker.model.rows import Changes
from dagorama_broker.model.signal_types import misfit
from dagorama_broker.model.signals import MOST_KEYS, Mail, SignalRow, WaitEnd, WaitRow
from dagorama_broker.scheduler.objects import Node

#: Names of kept signals that an explanation lists.
MOST_LISTED = 5
#: Bytes of all kept signals together.
MOST_BYTES = 64 << 20
#: Bytes that a kept signal, or a key, takes in addition to its content.
SIGNAL_BYTES = 400
#: Bytes that a waiting node takes in addition to what every node takes.
WAIT_BYTES = 600


class Mailbox:
    """The signals of one name of an instance."""

    __slots__ = ("compared", "kept", "keys", "over", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[int, Node] = OrderedDict()  #: by key, in the order in which they began to wait
        self.kept: deque[SignalRow] = deque()
        #: by the schema of a type: number of the last kept signal that was compared with it, and does not fit
        self.compared: dict[bytes, int] = {}
        self.keys: OrderedDict[str, tuple[bytes, int]] = OrderedDict()  #: digest and number by key, the latest last
        self.over = ""  #: why no node waits any longer, if the last one that did got no signal


class SignalCounts(NamedTuple):
    """Counts for metrics."""

    kept: int  #: signals of unfinished instances that no node waits for yet
    waits: int  #: nodes that wait for a signal
    taken: int  #: signals that were given to nodes, since the start


class Mailboxes:
    """All mailboxes of unfinished instances. An instance that has never used a signal has none."""

    def __init__(self) -> None:
        self._of: dict[int, dict[str, Mailbox]] = {}  # by instance and name
        self.next_number = 1
        self.size = 0  #: bytes of kept signals, keys and waits, roughly
        self.kept = 0  #: bytes of kept signals and keys
        self.signals = 0  #: kept signals
        self.waits = 0  #: nodes that wait
        self.taken = 0  #: signals that were given to nodes
        self._deadlines: list[tuple[float, int]] = []  # heap of (when, key) of nodes whose wait has a timeout
        self._deadline_of: dict[int, float] = {}  # by key, of nodes that wait now

    def find(self, instance: int, name: str) -> Mailbox | None:
        return self._of.get(instance, {}).get(name)

    def box(self, instance: int, name: str) -> Mailbox:
        """Return a mailbox; make it if there is none."""
        return self._of.setdefault(instance, {}).setdefault(name, Mailbox())

    def load(self, mail: Mail) -> None:
        """Take in what the store has of instances that come into memory, before their nodes wait."""
        for wait in sorted((wait for wait in mail.waits if wait.end), key=attrgetter("ended", "key")):
            self.box(wait.instance, wait.name).over = ended_wait_text(wait)
        for row in mail.signals:
            box = self.box(row.instance, row.name)
            if row.key:
                self._remember(box, row)
            if row.value is not None:
                self.keep(box, row)

    def counts(self) -> SignalCounts:
        """Return the counts for metrics."""
        return SignalCounts(self.signals, self.waits, self.taken)

    def forget(self, instance: int) -> None:
        """Drop the mailboxes of an instance that leaves memory; the store has them."""
        for box in self._of.pop(instance, {}).values():
            self.signals -= len(box.kept)
            self._add(-sum(map(_size, box.kept)) - SIGNAL_BYTES * len(box.keys))

    def set_deadline(self, key: int, when: float) -> None:
        """Let `overdue` yield a node at this time, unless `clear_deadline` is called before."""
        self._deadline_of[key] = when
        heappush(self._deadlines, (when, key))
        if len(self._deadlines) > 2 * len(self._deadline_of) + 64:  # most signals come long before the timeout
            self._deadlines = [(when, key) for key, when in self._deadline_of.items()]
            heapify(self._deadlines)

    def clear_deadline(self, key: int) -> None:
        """Forget the deadline of a node, if it has one."""
        self._deadline_of.pop(key, None)

    def next_deadline(self) -> float | None:
        """Return the time of the earliest deadline; None: there is none."""
        heap = self._deadlines
        while heap and self._deadline_of.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def overdue(self, now: float) -> Iterator[int]:
        """Yield the keys of nodes whose deadline is over; the caller ends each."""
        while (when := self.next_deadline()) is not None and when <= now:
            yield self._deadlines[0][1]

    def _add(self, size: int) -> None:
        self.kept += size
        self.size += size

    def enough(self, size: int) -> bool:
        """Return whether all kept signals together leave no room for this number of bytes."""
        return self.kept + size > MOST_BYTES

    def keep(self, box: Mailbox, row: SignalRow) -> None:
        """Keep a signal until a node waits for it."""
        box.kept.append(row)
        self.signals += 1
        self._add(_size(row))

    def take(self, box: Mailbox, schema: bytes) -> SignalRow | None:
        """Take the oldest kept signal out of a mailbox that may fit a type, by its JSON schema; None: there is none."""
        compared = box.compared.get(schema, 0)
        for index, row in enumerate(box.kept):
            if row.number > compared and not misfit_of(schema, row):
                del box.kept[index]
                self.signals -= 1
                self._add(-_size(row))
                return row
        if box.kept:
            box.compared[schema] = box.kept[-1].number
        return None

    def kept_of(self, instance: int) -> dict[str, Mailbox]:
        """Return the mailboxes of an instance with kept signals, by name."""
        return {name: box for name, box in self._of.get(instance, {}).items() if box.kept}

    def _remember(self, box: Mailbox, row: SignalRow) -> int:
        """Remember the key of a signal; return the number of the signal whose key is forgotten for it; 0: none is."""
        box.keys[row.key] = row.digest, row.number
        self._add(SIGNAL_BYTES)
        if len(box.keys) <= MOST_KEYS:
            return 0
        self._add(-SIGNAL_BYTES)
        return box.keys.popitem(last=False)[1][1]

    def remember(self, box: Mailbox, row: SignalRow, changes: Changes) -> None:
        """Remember the key of a new signal, instead of the oldest one if there are too many."""
        forgotten = self._remember(box, row)
        if forgotten and all(kept.number != forgotten for kept in box.kept):
            changes.signals_gone.append(forgotten)


def misfit_of(schema: bytes, row: SignalRow) -> str:
    """Return why a kept signal does not fit a type; empty: it may fit."""
    try:
        data = json.loads(row.value or b"null")
    except RecursionError:  # an earlier broker has kept it, which allowed more levels
        return ""
    return misfit(schema, data)


def _size(row: SignalRow) -> int:
    return SIGNAL_BYTES + len(row.value or b"")


def size_of_wait(wait: WaitRow) -> int:
    return WAIT_BYTES + len(wait.arguments) + len(wait.schema)


def kept_text(boxes: Mapping[str, Mailbox], wait: WaitRow) -> str:
    """Return which kept signals of the instance a node cannot take, and why; empty: none are kept."""
    texts, others = [], {name: len(box.kept) for name, box in boxes.items() if name != wait.name}
    if (box := boxes.get(wait.name)) is not None:
        why = misfit_of(wait.schema, box.kept[0])
        texts.append(f"of this name {len(box.kept)} are kept that do not fit its type (the first one {why})")
    if others:
        listed = ", ".join(f"{name!r} ({count})" for name, count in list(others.items())[:MOST_LISTED])
        more = f" and {len(others) - MOST_LISTED} more" if len(others) > MOST_LISTED else ""
        texts.append(f"signals are kept of other names: {listed}{more}")
    return "; ".join(texts)


def ended_wait_text(row: WaitRow) -> str:
    """Return why a node no longer waits; empty: it got a signal."""
    when = utc_text(row.ended)
    match row.end:
        case WaitEnd.TIMED_OUT:
            return f"the node that waited for it has failed at {when}, after its timeout of {row.timeout:g} s"
        case WaitEnd.DEFAULT:
            return f"the node that waited for it took its default at {when}, after its timeout of {row.timeout:g} s"
        case WaitEnd.CANCELLED:
            return f"the node that waited for it was cancelled at {when}"
    return ""
