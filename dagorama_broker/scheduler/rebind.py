"""Binds unfinished nodes to other code than they were made with, if a holder of a signing key allows it.

The scheduler holds no key. It applies a rebinding and keeps it, with its signature, for each node that it moves;
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
    """Nodes that may be rebound at present."""

    nodes: list[Node]
    hash: str  #: of the new code
    made_with: frozenset[str]  #: the code that they were made with


def rebindable(claims: Claims, asked: ReboundFunction) -> Rebindable:
    """Return the unclaimed ones of the nodes that are asked for.

    Raises NotFound if there is no such function, FailedPrecondition if the code is ambiguous.
    """
    queues = _queues_asked_for(claims, asked)
    hash = asked.hash or _deployed(claims, asked.name, queues)
    goals = {queue.id for queue in queues if queue.function.hash != hash or _is_signed_again(claims, asked, queue)}
    # This is requested by a person, so that looking at each unfinished node is acceptable.
    graph = claims.graph
    every = graph.unfinished_of(asked.instance) if asked.instance else graph.nodes.values()
    nodes = [node for node in every if node.queue.id in goals and node.state in UNCLAIMED]
    return Rebindable(nodes, hash, frozenset([code_of(graph, node) for node in nodes]))


def rebind(claims: Claims, asked: ReboundFunction, rebinding: Rebinding | None) -> Rebindable:
    """Move these nodes to the queue of the function with another hash, in their order. Return which they are.

    Raises NotFound or FailedPrecondition, also if `rebinding` does not allow all of it, and then nothing has changed.
    """
    found = rebindable(claims, asked)
    if found.nodes:
        _refuse_unsigned(found, asked, rebinding)
        assert rebinding is not None
        _move(claims.graph, found.nodes, found.hash, rebinding)
    return found


def rebind_deployed(claims: Claims, nodes: Iterable[Node], rebindings: Sequence[Rebinding]) -> int:
    """Bind the unclaimed ones of these nodes to the code that is deployed, as far as the rebindings allow it.

    Returns how many there are. No worker has code with an empty hash: the first one that is granted such a node returns
    it and names its own code, and `bind` does the rest.
    """
    moving: dict[int, list[Node]] = {}  # by the index of their rebinding
    places: dict[str, list[int]] = {}
    for place, rebinding in enumerate(rebindings):
        places.setdefault(rebinding.function, []).append(place)
    for node in nodes:
        if node.state in UNCLAIMED and _is_ours(node.queue):
            its = places.get(node.queue.function.name, ())
            for fitting in [place for place in its if _fits(claims.graph, node, rebindings[place])][:1]:
                moving.setdefault(fitting, []).append(node)
    for place, moved in moving.items():
        _move(claims.graph, moved, DEPLOYED, rebindings[place])
    return sum(map(len, moving.values()))


def is_unbound(claims: Claims, node: Node) -> bool:
    """Return whether the node waits for a worker to name the deployed code."""
    return node.queue.function.hash == DEPLOYED and node.key in claims.graph.made_with


def bind(claims: Claims, node: Node, hash: str) -> None:
    """Bind unclaimed nodes like this one, in its instance, to the code that a worker has named."""
    graph, queue = claims.graph, node.queue.id
    like = [other for other in graph.unfinished_of(node.instance.id) if other.queue.id == queue]
    for other in like:
        if other.state in UNCLAIMED and is_unbound(claims, other):
            _change_code(graph, other, hash, graph.rebindings[other.key], other.queue.function.rebound_under)


def code_of(graph: Graph, node: Node) -> str:
    """Return the code that an unfinished node was made with."""
    return graph.made_with.get(node.key, node.queue.function.code)


def refuse_uncovered(needed: Iterable[tuple[str, str]], rebindings: Iterable[Rebinding], instance: bytes) -> None:
    """Raise FailedPrecondition unless the rebindings allow the deployed code to run nodes of this instance.

    `needed` has the names of their functions and the code that each was made with.
    """
    allowed = {
        (rebinding.function, code) for rebinding in rebindings for code in rebinding.made_with
        if rebinding.hash == DEPLOYED and rebinding.instance in (b"", instance)
    }  # fmt: skip
    _refuse_missing([name for name, code in needed if (name, code) not in allowed], has_some=bool(allowed))


# --- which nodes ------------------------------------------------------------------------------------


def _queues_asked_for(claims: Claims, asked: ReboundFunction) -> list[FunctionQueue]:
    name = asked.name
    queues = [queue for queue in claims.graph.queues.values() if queue.function.name == name and _is_ours(queue)]
    if not queues:
        raise NotFound(f"no node of a function {name!r} has been made")
    if asked.made_with:
        _refuse_unknown(name, queues, asked.made_with)
        return [queue for queue in queues if queue.function.hash in asked.made_with]
    queues = [queue for queue in queues if claims.needs_rebinding(queue)]
    if not queues:
        raise FailedPrecondition(
            f"no connected worker has reported other code of {name} than the code of its queued nodes: start a worker"
            " that has it, or name both hashes, of the old code (--from-hash) and of the new code (--hash)"
        )
    return queues


def _is_ours(queue: FunctionQueue) -> bool:
    return queue.function.protocol is WireProtocol.V1


def _is_signed_again(claims: Claims, asked: ReboundFunction, queue: FunctionQueue) -> bool:
    """Return whether its nodes, which have the new code already, get another signature for it.

    They do if no worker holds the key of the present signature, or if a person names their code alone.
    """
    is_named = set(asked.made_with) == {queue.function.hash}
    return bool(queue.function.rebound_under) and (is_named or claims.lacks_key_of_rebinding(queue))


def _refuse_unknown(name: str, queues: Sequence[FunctionQueue], made_with: Collection[str]) -> None:
    known = {queue.function.hash for queue in queues}
    for hash in made_with:
        if hash not in known:
            raise NotFound(f"no node of {name} was made with {hash!r}; its nodes have {', '.join(sorted(known))}")


def _deployed(claims: Claims, name: str, queues: Sequence[FunctionQueue]) -> str:
    """Return the one hash that connected workers have instead of the given ones, or that was signed for before."""
    hashes = {hash for queue in queues for hash in claims.deployed(queue)}
    hashes = hashes or {queue.function.hash for queue in queues if claims.lacks_key_of_rebinding(queue)} - {DEPLOYED}
    if len(hashes) == 1:
        return hashes.pop()
    if not hashes:
        raise FailedPrecondition(
            f"no connected worker has reported its code of {name}: name the hash of the new code (--hash)"
        )
    raise FailedPrecondition(
        f"connected workers have different code of {name}: name one of {', '.join(sorted(hashes))}"
    )


# --- what is allowed --------------------------------------------------------------------------------


def _refuse_unsigned(found: Rebindable, asked: ReboundFunction, rebinding: Rebinding | None) -> None:
    """Raise FailedPrecondition unless the rebinding allows all that was found to be run by that code."""
    is_allowed = (
        rebinding is not None and (rebinding.function, rebinding.hash) == (asked.name, found.hash)
        and rebinding.instance in (b"", asked.instance) and found.made_with <= rebinding.made_with
    )  # fmt: skip
    _refuse_missing([] if is_allowed else [asked.name], has_some=rebinding is not None)


def _refuse_missing(names: Collection[str], *, has_some: bool) -> None:
    if names and has_some:
        raise FailedPrecondition(
            f"the signed rebinding does not allow other code for all nodes of {', '.join(sorted(set(names)))}: it was "
            "signed for something else, or there are new nodes by now; sign it again"
        )
    if names:
        raise FailedPrecondition(
            f"other code for nodes of {', '.join(sorted(set(names)))} needs a signature that allows it: {_SIGN}"
        )


def _fits(graph: Graph, node: Node, rebinding: Rebinding) -> bool:
    """Return whether a rebinding for deployed code covers this node, which has no such rebinding yet."""
    function = node.queue.function
    return (
        rebinding.instance in (b"", node.instance.id) and code_of(graph, node) in rebinding.made_with
        and (function.hash != DEPLOYED or function.rebound_under != rebinding.key_id)
    )  # fmt: skip


# --- moving -----------------------------------------------------------------------------------------


def _move(graph: Graph, nodes: Sequence[Node], hash: str, rebinding: Rebinding) -> None:
    row = RebindingRow(graph.next_rebinding, rebinding.signed)
    if any(code_of(graph, node) != hash for node in nodes):  # else none of them needs the row
        graph.next_rebinding += 1
        graph.changes.rebindings.append(row)
    for node in nodes:
        _change_code(graph, node, hash, row, rebinding.key_id)


def _change_code(graph: Graph, node: Node, hash: str, rebinding: RebindingRow, key_id: str) -> None:
    original = code_of(graph, node)
    is_back = hash == original
    graph.made_with.pop(node.key, None)
    graph.rebindings.pop(node.key, None)
    if not is_back:
        graph.made_with[node.key], graph.rebindings[node.key] = original, rebinding
    rebound_under = "" if is_back else key_id
    queue = graph.make_queue(replace(node.queue.function, hash=hash, class_code="", rebound_under=rebound_under))
    graph.change_queue(node, queue)
    graph.caching.leave_to_workers(node)
    graph.changes.rebound.append(ReboundRow(node.key, queue.id, 0 if is_back else rebinding.id))
