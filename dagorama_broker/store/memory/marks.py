"""The IDs, labels and fair keys that users have given to the instances of a store in memory."""

from __future__ import annotations

from collections.abc import Iterable

from dagorama_broker.errors import StoreError
from dagorama_broker.model.queries import InstanceMarks
from dagorama_broker.model.rows import LabelRow, NameRow, TurnRow


class Marks:
    """Ids, labels and turns by the keys of instances; all or nothing is committed, so repeats are refused first."""

    def __init__(self) -> None:
        self.of: dict[int, InstanceMarks] = {}  #: by instance; instances without any are left out
        self.names: dict[tuple[str, str], NameRow] = {}  #: by definition and name
        self.turns: dict[int, TurnRow] = {}

    def refuse_repeats(self, names: Iterable[NameRow]) -> None:
        """Raise StoreError if a definition has one of these IDs already, or would get it twice."""
        seen = set(self.names)
        for row in names:
            if (row.definition, row.name) in seen:
                raise StoreError("table instance_names already has a row with this key")
            seen.add((row.definition, row.name))

    def add(self, names: Iterable[NameRow], labels: Iterable[LabelRow]) -> None:
        """Add rows of new instances."""
        for row in names:
            self.names[row.definition, row.name] = row
            self.of[row.instance] = InstanceMarks(row.name, row.digest)
        for instance, label, value in labels:
            marks = self.of.get(instance, InstanceMarks())
            self.of[instance] = marks._replace(labels=tuple(sorted((*marks.labels, (label, value)))))

    def add_turns(self, turns: Iterable[TurnRow]) -> None:
        """Add rows of new instances."""
        for row in turns:
            self.turns[row.instance] = row
            if row.fair:
                self.of[row.instance] = self.of.get(row.instance, InstanceMarks())._replace(fair=row.fair)

    def remove(self, instance: int, definition: str) -> None:
        """Forget the ID and the labels of an instance; the ID may be given again."""
        self.turns.pop(instance, None)
        marks = self.of.pop(instance, None)
        if marks is not None and marks.name:
            del self.names[definition, marks.name]
