"""The signals of a store in memory, and the nodes that wait for them."""

from __future__ import annotations

from collections.abc import Collection

from dagorama_broker.model.rows import Changes
from dagorama_broker.model.signals import Mail, SignalRow, WaitRow


class MemoryMail:
    """Signals by number, and waits by the keys of nodes."""

    def __init__(self) -> None:
        self.waits: dict[int, WaitRow] = {}
        self.signals: dict[int, SignalRow] = {}

    def write(self, changes: Changes) -> None:
        """Write the rows of a commit: a later row replaces an earlier one."""
        self.waits.update((row.key, row) for row in changes.waits)
        self.signals.update((row.number, row) for row in changes.signals)
        for number in changes.signals_gone:
            self.signals.pop(number, None)

    def of(self, instances: Collection[int]) -> Mail:
        """Return what is stored of these instances, by their keys."""
        if not (self.waits or self.signals):
            return Mail([], [])
        waits = (self.waits[key] for key in sorted(self.waits))
        signals = (self.signals[number] for number in sorted(self.signals))
        return Mail(
            [row for row in waits if row.instance in instances], [row for row in signals if row.instance in instances]
        )

    def waits_of(self, nodes: Collection[int]) -> dict[int, WaitRow]:
        """Return the waits of nodes by their keys; nodes that wait for no signal are left out."""
        return {key: self.waits[key] for key in nodes if key in self.waits}

    def remove(self, instance: int) -> None:
        """Delete the signals of a removed instance; its nodes are deleted later, with their waits."""
        for number in [number for number, row in self.signals.items() if row.instance == instance]:
            del self.signals[number]
