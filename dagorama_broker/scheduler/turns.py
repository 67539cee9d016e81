"""Whose turn it is: instances with different fair keys take turns. Decided once for each instance.

The rule is start-time fair queueing. The next instance of a key gets the turn after the key's last one, and the first
one of a key the turn after the present one. Grants are in the order of turns, and of creation within a turn.
Instances without a key share a key of their own. While no instance has a key, an instance's turn is its own key, so
that the order is the order of creation and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama_broker.model.rows import InstanceRow, TurnRow


class Share:
    """The turns of one key that has unfinished instances."""

    __slots__ = ("last", "unfinished")

    def __init__(self, last: int = 0) -> None:
        self.last = last  #: turn of its youngest instance
        self.unfinished = 0  #: instances


class Line:
    """The turns of all instances of one priority."""

    __slots__ = ("last", "reached", "shares")

    def __init__(self) -> None:
        self.reached = 0  #: the present turn: the largest one of an instance that was granted a node
        self.last = 0  #: the largest turn that is the instance's own key
        #: by key, empty for instances without one; while it is empty, turns are the instances' own keys
        self.shares: dict[str, Share] = {}

    def take(self, instance: int, fair: str) -> int:
        """Return the turn of a new instance, which counts as unfinished until `leave` if the line has shares then."""
        if not fair and not self.shares:
            if self.last <= self.reached < instance:
                self.reached = instance - 1  # none of them waits, so that the next key begins here
            self.last = max(self.last, instance)
            return instance
        share = self.shares.get(fair)
        if share is None:
            share = self.shares[fair] = Share(0 if fair else self.last)
        share.unfinished += 1
        share.last = max(share.last, self.reached) + 1
        return share.last

    def leave(self, fair: str) -> None:
        """Count an instance as finished. A key without any is forgotten: its turns are over, or were never used."""
        share = self.shares[fair]
        share.unfinished -= 1
        if not share.unfinished:
            del self.shares[fair]

    def turn_of_old(self, instance: int) -> int:
        """Return the turn of an instance that had ended and goes on: it has had its turn."""
        return min(instance, self.reached) if self.shares else instance


class Turns:
    """The lines of all priorities."""

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}

    def line(self, priority: int) -> Line:
        """Return the line of a priority."""
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = Line()
        return line

    def restore(self, instances: Iterable[InstanceRow], turns: Mapping[int, TurnRow]) -> None:
        """Take in the unfinished instances of an earlier broker.

        Its grants are not known. A key with waiting instances has all turns up to its last one, so that the present
        turn was before the unfinished ones.
        """
        own: dict[Line, int] = {}
        for row in instances:
            line, taken = self.line(row.priority), turns.get(row.key)
            if taken is None:
                line.last = max(line.last, row.key)
                own[line] = own.get(line, 0) + 1
            else:
                share = line.shares.setdefault(taken.fair, Share())
                share.last = max(share.last, taken.turn)
                share.unfinished += 1
        for line in self._lines.values():
            begun = [share.last - share.unfinished for share in line.shares.values()]
            line.reached = max(line.last - own.get(line, 0), *begun, 0)
