"""Binds unfinished nodes to other code than they were made with, as a holder of a signing key allows.

The scheduler holds no key. It does what an adoption says and keeps what was signed with each node that it moves;
workers check the signature before they run the node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from dagorama_broker.errors import FailedPrecondition, NotFound
from dagorama_broker.model.domain import Rebinding, WireProtocol
from dagorama_broker.model.rows import RebindingRow, ReboundRow
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.transitions import BACKOFF, QUEUED, WAITING

#: States in which no worker runs a node or has run it.
UNCLAIMED = frozenset({WAITING, QUEUED, BACKOFF})
#: The hash of nodes that are run by the code that is deployed when they are granted.
DEPLOYED = ""
_SIGN = "sign it with `dagorama rebind`, `dagorama retry --new-code` or `new_code=True` of this version"


class ReboundFunction(NamedTuple):
    """Which nodes to bind, and to which code."""

    name: str
    hash: str = ""  #: of the new code; empty: the one that connected workers have
    made_with: Collection[str] = ()  #: hashes: only nodes that are run by this code now; empty: code that no worker has
    instance: bytes = b""  #: only nodes of this one; empty: of all


class Rebindable(NamedTuple):
    """Nodes that may be adopted as things stand."""

    nodes: list[Node]
    hash: str  #: of the new code
    made_with: frozenset[str]  #: the code that they were made with


def rebindable(dispatch: Claims, asked: ReboundFunction) -> Rebindable:
    """Return the unclaimed ones of the nodes that are asked for.

    Raises NotFound if there is no such function, FailedPrecondition if the code is ambiguous.
    """
    lanes = _lanes_asked_for(dispatch, asked)
    hash = asked.hash or _deployed(dispatch, asked.name, lanes)
    goals = {lane.id for lane in lanes if lane.function.hash != hash or _is_signed_again(dispatch, asked, lane)}
    # This is requested by a person, so that looking at each unfinished node is acceptable.
    graph = dispatch.graph
    every = graph.unfinished_of(asked.instance) if asked.instance else graph.nodes.values()
    nodes = [node for node in every if node.queue.id in goals and node.state in UNCLAIMED]
    return Rebindable(nodes, hash, frozenset([code_of(graph, node) for node in nodes]))


def rebind(dispatch: Claims, asked: ReboundFunction, adoption: Rebinding | None) -> Rebindable:
    """Move these nodes to the queue of the function with another hash, in their order. Return which they are.

    Raises NotFound or FailedPrecondition, also if `adoption` does not allow all of it, and then nothing has changed.
    """
    found = rebindable(dispatch, asked)
    if found.nodes:
        _refuse_unsigned(found, asked, adoption)
        assert adoption is not None
        _move(dispatch.graph, found.nodes, found.hash, adoption)
    return found


def rebind_deployed(dispatch: Claims, nodes: Iterable[Node], adoptions: Sequence[Rebinding]) -> int:
    """Bind the unclaimed ones of these nodes to the code that is deployed, as far as the adoptions allow it.

    Returns how many there are. No worker has code with an empty hash: the first one that is granted such a node returns
    it and names its own code, and `bind` does the rest.
    """
    moving: dict[int, list[Node]] = {}  # by the index of their adoption
    places: dict[str, list[int]] = {}
    for place, adoption in enumerate(adoptions):
        places.setdefault(adoption.function, []).append(place)
    for node in nodes:
        if node.state in UNCLAIMED and _is_ours(node.queue):
            its = places.get(node.queue.function.name, ())
            for fitting in [place for place in its if _fits(dispatch.graph, node, adoptions[place])][:1]:
                moving.setdefault(fitting, []).append(node)
    for place, moved in moving.items():
        _move(dispatch.graph, moved, DEPLOYED, adoptions[place])
    return sum(map(len, moving.values()))


def is_unbound(dispatch: Claims, node: Node) -> bool:
    """Return whether the node waits for a worker to name the deployed code."""
    return node.queue.function.hash == DEPLOYED and node.key in dispatch.graph.made_with


def bind(dispatch: Claims, node: Node, hash: str) -> None:
    """Bind unclaimed nodes like this one, in its instance, to the code that a worker has named."""
    graph, lane = dispatch.graph, node.queue.id
    like = [other for other in graph.unfinished_of(node.instance.id) if other.queue.id == lane]
    for other in like:
        if other.state in UNCLAIMED and is_unbound(dispatch, other):
            _change_code(graph, other, hash, graph.rebindings[other.key], other.queue.function.rebound_under)


def code_of(graph: Graph, node: Node) -> str:
    """Return the code that an unfinished node was made with."""
    return graph.made_with.get(node.key, node.queue.function.code)


def refuse_uncovered(needed: Iterable[tuple[str, str]], adoptions: Iterable[Rebinding], instance: bytes) -> None:
    """Raise FailedPrecondition unless the rebindings allow the deployed code to run nodes of this instance.

    `needed` has the names of their functions and the code that each was made with.
    """
    allowed = {
        (adoption.function, code) for adoption in adoptions for code in adoption.made_with
        if adoption.hash == DEPLOYED and adoption.instance in (b"", instance)
    }  # fmt: skip
    _refuse_missing([name for name, code in needed if (name, code) not in allowed], has_some=bool(allowed))


# --- which nodes ------------------------------------------------------------------------------------


def _lanes_asked_for(dispatch: Claims, asked: ReboundFunction) -> list[FunctionQueue]:
    name = asked.name
    lanes = [lane for lane in dispatch.graph.queues.values() if lane.function.name == name and _is_ours(lane)]
    if not lanes:
        raise NotFound(f"no node of a function {name!r} has been made")
    if asked.made_with:
        _refuse_unknown(name, lanes, asked.made_with)
        return [lane for lane in lanes if lane.function.hash in asked.made_with]
    lanes = [lane for lane in lanes if dispatch.needs_adoption(lane)]
    if not lanes:
        raise FailedPrecondition(
            f"no connected worker has said that it has other code of {name} than its queued nodes were made with: "
            "start one that has, or name both, with what they were made and what is to run them"
        )
    return lanes


def _is_ours(lane: FunctionQueue) -> bool:
    return lane.function.protocol is WireProtocol.V1


def _is_signed_again(dispatch: Claims, asked: ReboundFunction, lane: FunctionQueue) -> bool:
    """Return whether its nodes, which have the new code already, get another signature for it.

    They do if no worker holds the key of the present signature, or if a person names their code alone.
    """
    is_named = set(asked.made_with) == {lane.function.hash}
    return bool(lane.function.rebound_under) and (is_named or dispatch.lacks_key_of_adoption(lane))


def _refuse_unknown(name: str, lanes: Sequence[FunctionQueue], made_with: Collection[str]) -> None:
    known = {lane.function.hash for lane in lanes}
    for hash in made_with:
        if hash not in known:
            raise NotFound(f"no node of {name} was made with {hash!r}; there are {', '.join(sorted(known))}")


def _deployed(dispatch: Claims, name: str, lanes: Sequence[FunctionQueue]) -> str:
    """Return the one hash that connected workers have instead of the given ones, or that was signed for before."""
    hashes = {hash for lane in lanes for hash in dispatch.deployed(lane)}
    hashes = hashes or {lane.function.hash for lane in lanes if dispatch.lacks_key_of_adoption(lane)} - {DEPLOYED}
    if len(hashes) == 1:
        return hashes.pop()
    if not hashes:
        raise FailedPrecondition(
            f"no connected worker has said what code of {name} it has: name the hash of what is to run"
        )
    raise FailedPrecondition(
        f"connected workers have different code of {name}: name one of {', '.join(sorted(hashes))}"
    )


# --- what is allowed --------------------------------------------------------------------------------


def _refuse_unsigned(found: Rebindable, asked: ReboundFunction, adoption: Rebinding | None) -> None:
    """Raise FailedPrecondition unless the adoption allows all that was found to be run by that code."""
    is_allowed = (
        adoption is not None and (adoption.function, adoption.hash) == (asked.name, found.hash)
        and adoption.instance in (b"", asked.instance) and found.made_with <= adoption.made_with
    )  # fmt: skip
    _refuse_missing([] if is_allowed else [asked.name], has_some=adoption is not None)


def _refuse_missing(names: Collection[str], *, has_some: bool) -> None:
    if names and has_some:
        raise FailedPrecondition(
            f"what was signed does not allow other code for all nodes of {', '.join(sorted(set(names)))}; there are "
            "others by now, or it was signed for something else: do it again"
        )
    if names:
        raise FailedPrecondition(
            f"other code for nodes of {', '.join(sorted(set(names)))} needs a signature that allows it: {_SIGN}"
        )


def _fits(graph: Graph, node: Node, adoption: Rebinding) -> bool:
    """Return whether an adoption for deployed code covers this node, which has no such adoption yet."""
    function = node.queue.function
    return (
        adoption.instance in (b"", node.instance.id) and code_of(graph, node) in adoption.made_with
        and (function.hash != DEPLOYED or function.rebound_under != adoption.key_id)
    )  # fmt: skip


# --- moving -----------------------------------------------------------------------------------------


def _move(graph: Graph, nodes: Sequence[Node], hash: str, adoption: Rebinding) -> None:
    row = RebindingRow(graph.next_adoption, adoption.signed)
    if any(code_of(graph, node) != hash for node in nodes):  # else none of them needs the row
        graph.next_adoption += 1
        graph.changes.rebindings.append(row)
    for node in nodes:
        _change_code(graph, node, hash, row, adoption.key_id)


def _change_code(graph: Graph, node: Node, hash: str, adoption: RebindingRow, key_id: str) -> None:
    original = code_of(graph, node)
    is_back = hash == original
    graph.made_with.pop(node.key, None)
    graph.rebindings.pop(node.key, None)
    if not is_back:
        graph.made_with[node.key], graph.rebindings[node.key] = original, adoption
    rebound_under = "" if is_back else key_id
    lane = graph.make_lane(replace(node.queue.function, hash=hash, class_code="", rebound_under=rebound_under))
    graph.change_lane(node, lane)
    graph.changes.rebound.append(ReboundRow(node.key, lane.id, 0 if is_back else adoption.id))
