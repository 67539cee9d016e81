"""Groups failed nodes by their errors: the same function, the same type, and messages that differ in details only.

The rule: rows are read and grouped in the thread of the store's view, a page at a time; the loop gets the groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dagorama_broker.engine.commits import Commits
from dagorama_broker.model.queries import FailurePage, InstanceQuery, StoredInstance

#: Failed nodes that one page reads, and all pages of one call together.
PAGE, LOOKED_AT = 5_000, 200_000
#: The same for failed instances.
INSTANCES, INSTANCES_LOOKED_AT = 100, 20_000
#: A control character between messages, so that one substitution replaces parts of many.
_BETWEEN = "\x1f"
#: Stands for a part in which the messages of a group differ.
DETAIL = "…"
_DIGITS = str.maketrans("123456789", "0" * 9)
#: Parts in which messages about the same error differ. All alternatives begin with one set of characters, which makes
#: the search fast.
_DETAILS = re.compile(
    rf"""['"0-9a-fA-F](?:
        (?<=')(?<!\w')[^'{_BETWEEN}]*'(?!\w)                              # quoted text, not an apostrophe
      | (?<=")(?<!\w")[^"{_BETWEEN}]*"(?!\w)
      | (?<=[0-9a-fA-F])(?<!\w.)[0-9a-fA-F]{{7}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}}\b
      | (?<=0)(?<!\w.)[xX][0-9a-fA-F]+\b
      | (?<=[0-9a-f])(?<!\w.)(?:(?<=\d)|(?=[a-f]*\d))[0-9a-f]{{7,}}\b      # the ID of a commit
      | (?<=\d)\d*(?:[.,:_]\d+)*(?:[eE][-+]?\d+\b)?                        # a number, a time, an address
    )""",
    re.VERBOSE | re.DOTALL,
)


def first_lines(messages: Sequence[str]) -> list[str]:
    """Return the first lines of messages, without blanks around them."""
    return [message.strip() if message.isprintable() else _first_line(message) for message in messages]


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0].rstrip().replace(_BETWEEN, " ")


def without_details(lines: Sequence[str]) -> list[str]:
    """Return texts of one line with `DETAIL` in place of numbers, IDs, hexadecimal digits and quoted text."""
    if not lines:
        return []
    zeros = _BETWEEN.join(lines).translate(_DIGITS).split(_BETWEEN)  # most texts differ in digits only
    distinct = list(dict.fromkeys(zeros))
    text = _DETAILS.sub(DETAIL, _BETWEEN.join(distinct)).replace(f" -{DETAIL}", f" {DETAIL}")
    found = dict(zip(distinct, text.split(_BETWEEN), strict=True))
    return [found[zero] for zero in zeros]


@dataclass(slots=True)
class Group:
    """Failed nodes with the same error."""

    function: str
    type: str
    pattern: str  #: the message without its details
    message: str  #: of `example`, its first line
    is_one_message: bool = True  #: all nodes have this message
    nodes: int = 0
    downstream: int = 0  #: nodes that failed because of these
    first: float = 0.0  #: seconds since 1970
    last: float = 0.0
    example: int = 0  #: key of the node that failed last
    instances: set[int] = field(default_factory=set)  #: keys

    @property
    def shown(self) -> str:
        """The message of all nodes, or what their messages have in common."""
        return self.message if self.is_one_message else self.pattern


@dataclass(slots=True)
class FailureGroups:
    """The groups of the failed nodes of some instances."""

    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    nodes: int = 0
    downstream: int = 0
    more: bool = False  #: older failures were not looked at

    def add(self, instance: int, page: FailurePage) -> None:
        """Add failed nodes of an instance, by its key."""
        lines = first_lines(page.messages)
        places: dict[tuple[str, str, str], list[int]] = {}
        for place, key in enumerate(zip(page.functions, page.types, without_details(lines), strict=True)):
            places.setdefault(key, []).append(place)
        for key, its in places.items():
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(*key, lines[its[0]], first=page.ended[its[0]])
            _count(group, page, lines, its)
            group.instances.add(instance)
            self.nodes += len(its)
        self.downstream += sum(page.downstream.values())

    def largest(self, most: int) -> list[Group]:
        """Return the largest groups, of equal ones the latest first."""
        return sorted(self.groups.values(), key=lambda group: (-group.nodes, -group.last))[:most]


def _count(group: Group, page: FailurePage, lines: Sequence[str], places: Sequence[int]) -> None:
    """Count the nodes at these places of a page."""
    group.nodes += len(places)
    group.downstream += sum(page.downstream.get(page.keys[place], 0) for place in places) if page.downstream else 0
    group.first = min(group.first, min(page.ended[place] for place in places))
    group.is_one_message = group.is_one_message and {group.message}.issuperset(lines[place] for place in places)
    last = max(places, key=lambda place: page.ended[place])
    if page.ended[last] >= group.last:
        group.last, group.example, group.message = page.ended[last], page.keys[last], lines[last]


async def group_failures(
    commits: Commits, instances: Iterable[StoredInstance] | None, definition: str
) -> FailureGroups:
    """Group the failed nodes of these instances; None: of all instances of a definition, or of any, latest first."""
    groups = FailureGroups()
    if instances is not None:
        for stored in instances:
            await _add_instances(commits, groups, [stored])
        return groups
    before, seen = (1 << 63) - 1, 0
    while before and not groups.more:
        asked = InstanceQuery(before, INSTANCES, failed=True, definition=definition)
        found = await commits.in_view(commits.store.view.list_instances, asked)
        before, seen = found.more, seen + len(found.instances)
        await _add_instances(commits, groups, found.instances)
        groups.more = groups.more or (before > 0 and (groups.nodes >= LOOKED_AT or seen >= INSTANCES_LOOKED_AT))
    return groups


async def _add_instances(commits: Commits, groups: FailureGroups, instances: Sequence[StoredInstance]) -> None:
    """Add the failed nodes of instances, in calls of the view that read about a page each."""
    view = commits.store.view
    left = [(stored.row.key, 0) for stored in reversed(instances)]

    def add_page() -> None:
        read = 0
        while left and read < PAGE:
            instance, after = left.pop()
            page = view.failures(instance, after, PAGE)
            groups.add(instance, page)
            read += len(page.keys)
            if page.more:
                left.append((instance, page.more))

    while left and not groups.more:
        await commits.in_view(add_page)
        groups.more = bool(left) and groups.nodes >= LOOKED_AT
