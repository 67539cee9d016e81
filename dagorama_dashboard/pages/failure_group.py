"""One group of failures, as a form names it, and the failed nodes that belong to it."""

from __future__ import annotations

from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.api.error_patterns import first_lines, without_details
from dagorama_dashboard.pages.instances import search_of
from dagorama_dashboard.web.forms import Form
from dagorama_dashboard.web.look import Look

#: Characters of a message that are compared. The broker leaves out the middle of longer ones.
COMPARED = 200


class NamedGroup(NamedTuple):
    """The function and the error that all failed nodes of a group share."""

    function: str
    type: str  #: of the exception, "builtins.ValueError"
    message: str  #: its first line, or what the first lines have in common

    @property
    def text(self) -> str:
        return ": ".join(filter(None, [self.type.removeprefix("builtins."), self.message]))


def group_in(fields: Form) -> NamedGroup | None:
    """Return the group that a form is about; None: it is about no group."""
    if fields.get("only") != "nodes":
        return None
    return NamedGroup(fields.get("function"), fields.get("type"), fields.get("message"))


async def nodes_of_group(look: Look, group: NamedGroup, search: str, id: bytes) -> list[bytes]:
    """Return the failed nodes of an instance that belong to a group; the search finds them, and others."""
    wanted = search_of(search).request
    asked = pb.ListNodesRequest(
        instance=id, states=[pb.FAILED], function=wanted.function, error=wanted.error, limit=1_000
    )  # fmt: skip
    found: list[bytes] = []
    while True:
        reply = await look.ask("ListNodes", asked)
        found += _members(group, list(reply.nodes))
        if not reply.more:
            return found
        asked.after = reply.more


def _members(group: NamedGroup, nodes: list[pb.NodeInfo]) -> list[bytes]:
    name = group.type.removeprefix("builtins.")
    (wanted,) = _patterns([group.message])
    patterns = _patterns([info.reason.removeprefix(name).removeprefix(": ") for info in nodes])
    return [
        info.node
        for info, pattern in zip(nodes, patterns, strict=True)
        if info.function.name == group.function
        and pattern == wanted
        and (info.reason == name or info.reason.startswith(f"{name}: " if name else ""))
    ]


def _patterns(messages: list[str]) -> list[str]:
    return [pattern[:COMPARED] for pattern in without_details(first_lines(messages))]
