"""Envelopes on their way: in memory within a bound from commit to use, read back from the store where they are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from dagorama_broker.model import Changes, State
from dagorama_broker.scheduler.objects import Effects, Node

#: Reads one batch of keys: `store.arguments` or `store.values`, called in the broker's store thread.
Read = Callable[[Sequence[int]], Awaitable[dict[int, bytes]]]
#: Keys read at a time, which bounds what one read brings into memory.
READ_BATCH = 256


class Shelf:
    """Envelopes by node key. What does not fit is simply not kept: the store has it."""

    def __init__(self, most: int, read: Read) -> None:
        self.most = most  #: bytes
        self.size = 0
        self.kept: dict[int, bytes] = {}
        self._read = read

    def keep(self, key: int, envelope: bytes) -> None:
        if self.size + len(envelope) <= self.most:
            self.kept[key] = envelope
            self.size += len(envelope)

    def drop(self, key: int) -> None:
        envelope = self.kept.pop(key, None)
        if envelope is not None:
            self.size -= len(envelope)

    async def get(self, keys: Iterable[int]) -> dict[int, bytes]:
        """The envelopes of these keys. Raises StoreError where the store lacks one."""
        found: dict[int, bytes] = {}
        missing = []
        for key in keys:
            envelope = self.kept.get(key)
            if envelope is None:
                missing.append(key)
            else:
                found[key] = envelope
        for start in range(0, len(missing), READ_BATCH):
            found.update(await self._read(missing[start : start + READ_BATCH]))
        return found


class Payloads:
    """Arguments of nodes that have not ended, and values that unfinished nodes or watchers will be given."""

    def __init__(self, most: int, arguments: Read, values: Read) -> None:
        self.arguments = Shelf(most, arguments)
        self.values = Shelf(most, values)

    def take_in(self, changes: Changes, nodes: dict[int, Node], is_wanted: Callable[[int], bool]) -> None:
        """Keep what is about to be committed and will be read soon."""
        for revived in changes.revived:
            if revived.state != State.RESOLVING:
                self.values.drop(revived.key)
        for row in changes.nodes:
            if row.key in nodes:
                self.arguments.keep(row.key, row.arguments)
        for given_up in changes.given_up:
            for key in range(given_up.first_key, given_up.last_key + 1):
                self.arguments.drop(key)
        for outcome in changes.outcomes:
            if outcome.value is not None and (outcome.state == State.RESOLVING or is_wanted(outcome.key)):
                self.values.keep(outcome.key, outcome.value)

    def let_go(self, effects: Effects, is_wanted: Callable[[int], bool]) -> None:
        """Drop what nothing unfinished will be given any more."""
        for node in effects.ended:
            self.arguments.drop(node.key)
            if not node.readers and not is_wanted(node.key):
                self.values.drop(node.key)
        for key in effects.unread:
            if not is_wanted(key):
                self.values.drop(key)
