"""Has unfinished nodes run by the code that is deployed now instead of the code that they were made with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from dagorama_broker.errors import NotAllowedNow, NotKnown
from dagorama_broker.model import AdoptedRow, World
from dagorama_broker.queues import Lane
from dagorama_broker.scheduler.dispatch import Dispatch
from dagorama_broker.scheduler.parts import Node
from dagorama_broker.scheduler.transitions import BACKOFF, QUEUED, WAITING

#: States in which nobody runs a node's code, or has run it.
UNCLAIMED = frozenset({WAITING, QUEUED, BACKOFF})
#: The hash of nodes that are to be run by whatever code is deployed.
DEPLOYED = ""


class Adoption(NamedTuple):
    adopted: int  #: nodes
    hash: str  #: of the code that runs them now


def adopt(
    dispatch: Dispatch, name: str, hash: str, made_with: Collection[str], instance: bytes = b""
) -> Adoption:
    """Nodes of this function that nobody holds go over to its lane with another hash, in their order.

    `instance`: only nodes of this one.

    `hash` empty: the one that connected workers have; `made_with` empty: nodes of code that none of them has. Raises
    NotKnown where there is no such function, NotAllowedNow where it cannot be told which code, and nothing has changed.
    """
    lanes = [lane for lane in dispatch.graph.lanes.values() if lane.function.name == name and _is_ours(lane)]
    if not lanes:
        raise NotKnown(f"no node of a function {name!r} has been made")
    if made_with:
        _refuse_unknown(name, lanes, made_with)
        lanes = [lane for lane in lanes if lane.function.hash in made_with]
    else:
        lanes = [lane for lane in lanes if dispatch.why_nobody(lane) and dispatch.deployed(lane)]
        if not lanes:
            raise NotAllowedNow(
                f"no connected worker has said that it has other code of {name} than its queued nodes were made with: "
                "start one that has, or name both, with what they were made and what is to run them"
            )
    hash = hash or _deployed(dispatch, name, lanes)
    goals = {lane.id for lane in lanes if lane.function.hash != hash}
    # A person asks for it: one look at each unfinished node.
    every = dispatch.graph.unfinished_of(instance) if instance else dispatch.graph.nodes.values()
    nodes = [node for node in every if node.lane.id in goals and node.state in UNCLAIMED]
    for node in nodes:
        _change_code(dispatch, node, hash)
    return Adoption(len(nodes), hash)


def adopt_deployed(dispatch: Dispatch, nodes: Iterable[Node]) -> int:
    """Have the unclaimed ones of these nodes run by the code that is deployed; returns how many there are.

    No worker has code with an empty hash: the first that is offered such a node gives it back and says which it has,
    and `bind` does the rest.
    """
    changed = [node for node in nodes if node.state in UNCLAIMED and node.lane.function.hash and _is_ours(node.lane)]
    for node in changed:
        _change_code(dispatch, node, DEPLOYED)
    return len(changed)


def is_unbound(dispatch: Dispatch, node: Node) -> bool:
    """Whether the node waits for a worker to say which code is deployed."""
    return node.lane.function.hash == DEPLOYED and node.key in dispatch.graph.made_with


def bind(dispatch: Dispatch, node: Node, hash: str) -> None:
    """A worker that was offered this node has this code: unclaimed nodes like it in its instance are run by that."""
    lane = node.lane.id
    like = [other for other in dispatch.graph.unfinished_of(node.instance.id) if other.lane.id == lane]
    for other in like:
        if other.state in UNCLAIMED and is_unbound(dispatch, other):
            _change_code(dispatch, other, hash)


def _is_ours(lane: Lane) -> bool:
    return lane.function.world is World.OURS


def _refuse_unknown(name: str, lanes: Sequence[Lane], made_with: Collection[str]) -> None:
    known = {lane.function.hash for lane in lanes}
    for hash in made_with:
        if hash not in known:
            raise NotKnown(f"no node of {name} was made with {hash!r}; there are {', '.join(sorted(known))}")


def _deployed(dispatch: Dispatch, name: str, lanes: Sequence[Lane]) -> str:
    """The one hash that connected workers have instead of those of these lanes."""
    hashes = {hash for lane in lanes for hash in dispatch.deployed(lane)}
    if len(hashes) == 1:
        return hashes.pop()
    if not hashes:
        raise NotAllowedNow(f"no connected worker has said what code of {name} it has: name the hash of what is to run")
    raise NotAllowedNow(f"connected workers have different code of {name}: name one of {', '.join(sorted(hashes))}")


def _change_code(dispatch: Dispatch, node: Node, hash: str) -> None:
    graph = dispatch.graph
    lane = graph.lane(replace(node.lane.function, hash=hash, class_code=""))
    original = graph.made_with.pop(node.key, node.lane.function.code)
    if original != lane.function.code:
        graph.made_with[node.key] = original
    graph.change_lane(node, lane)
    graph.changes.adopted.append(AdoptedRow(node.key, lane.id))
