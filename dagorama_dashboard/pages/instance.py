"""One instance: its state, its failures, its graph, and its nodes in a table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import WAIT_FUNCTION
from dagorama.errors import NotFound, RequestRejected
from dagorama.models.state import State
from dagorama_dashboard.broker import DEADLINE
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

VIEWS = ("shape", "quilt", "focus", "timeline", "table")
#: Rows of the table, and groups of failures above it.
ROWS, MOST_FAILURES = 100, 3
#: Names of signals that are shown.
MOST_SIGNALS = 10


class Filter(NamedTuple):
    """A state to filter by, as the address has it."""

    name: str
    states: tuple[State, ...]


FILTERS = (
    Filter("", ()),
    Filter("failed", (State.FAILED,)),
    Filter("running", (State.CLAIMED,)),
    Filter("queued", (State.QUEUED,)),
    Filter("waiting", (State.WAITING, State.RESOLVING)),
    Filter("delayed", (State.BACKOFF,)),
    Filter("done", (State.COMPLETED,)),
    Filter("cancelled", (State.CANCELLED,)),
)


def instance_id(look: Look) -> bytes:
    """Return the ID in the path. Raises NotFound."""
    text = look.request.path_params["instance"]
    try:
        return UUID(text).bytes
    except ValueError:
        raise NotFound(f"{text!r} is not the ID of an instance") from None


async def instance(look: Look) -> Content:
    """Return the page of an instance; its graph is drawn in the browser."""
    id = instance_id(look)
    view = look.query("view") or "shape"
    if view not in VIEWS:
        raise RequestRejected(f"there is no view {view!r}; choose one of {', '.join(VIEWS)}")
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
    progress, failures, why, result = await asyncio.gather(
        _progress(look, id),
        look.recent("ListFailures", pb.ListFailuresRequest(instance=id, limit=MOST_FAILURES), 2.0)
        if info.failed
        else _nothing(),
        look.recent("ExplainNode", pb.ExplainNodeRequest(instance=id), 2.0) if info.stuck else _nothing(),
        look.recent("GetNode", pb.GetNodeRequest(instance=id, node=info.entry), 60.0)
        if info.entry_state == pb.COMPLETED
        else _nothing(),
    )
    table = await _table(look, id) if view == "table" else None
    waits = await _waits(look, id, progress.functions)
    return Content(
        "instance.html",
        f"{info.definition.rpartition(':')[2]} {id.hex()[:8]}",
        {
            "info": info, "id": f"{UUID(bytes=id)}", "view": view, "views": VIEWS, "failures": failures, "why": why,
            "functions": progress.functions, "reports": progress.reports, "table": table, "filters": FILTERS,
            "nodes": [sum(counts) for counts in zip(*(each.nodes for each in progress.functions), strict=True)],
            "node": look.number("node"), "result": result, "waits": waits,
        },
        section="instances",
    )  # fmt: skip


async def _nothing() -> None:
    return None


async def _progress(look: Look, id: bytes) -> pb.Progress:
    if look.is_update:
        return await look.site.progress.latest(look.viewer, id)
    states = look.viewer.follow("Watch", pb.WatchRequest(instance=id, now=True), DEADLINE)
    (progress,) = [progress async for progress in states]
    assert isinstance(progress, pb.Progress)
    return progress


class Waits(NamedTuple):
    """Nodes of an instance that wait for a signal of one name."""

    first: pb.NodeInfo  #: the one that was created first
    nodes: int


async def _waits(look: Look, id: bytes, functions: Iterable[pb.FunctionProgress]) -> list[Waits]:
    """Return what nodes wait for, up to `MOST_SIGNALS` names of signals in the order of their first nodes."""
    waiting = {
        each.function: each.nodes[State.WAITING]
        for each in functions
        if each.function.startswith(WAIT_FUNCTION) and each.nodes[State.WAITING]
    }
    asked = [
        pb.ListNodesRequest(instance=id, states=[pb.WAITING], function=function, limit=1)
        for function in list(waiting)[:MOST_SIGNALS]
    ]
    replies = await asyncio.gather(*(look.recent("ListNodes", request, 2.0) for request in asked))
    return [
        Waits(reply.nodes[0], waiting[request.function])
        for request, reply in zip(asked, replies, strict=True)
        if reply.nodes and reply.nodes[0].signal.name
    ]


class Table(NamedTuple):
    """A page of nodes."""

    nodes: list[pb.NodeInfo]
    names: dict[bytes, int]  #: ordinals of root causes, by ID
    more: int


async def _table(look: Look, id: bytes) -> Table:
    chosen = next((each for each in FILTERS if each.name == look.query("state")), None)
    if chosen is None:
        raise RequestRejected(f"there is no state {look.query('state')!r}")
    asked = pb.ListNodesRequest(
        instance=id, states=[pb.NodeState.ValueType(state) for state in chosen.states], limit=ROWS,
        after=look.number("after"), function=look.query("function"), error=look.query("error"),
        worker=look.query("worker"), min_microseconds=_microseconds(look.query("slower")),
        min_failed_attempts=1 if look.query("retried") else 0,
    )  # fmt: skip
    reply = await look.ask("ListNodes", asked)
    nodes = list(reply.nodes)
    if not asked.after and not chosen.states and reply.more:  # failed ones first
        asked.states.append(pb.NodeState.ValueType(State.FAILED))
        failed = await look.ask("ListNodes", asked)
        shown = {info.node for info in failed.nodes}
        nodes = [*failed.nodes, *(info for info in nodes if info.node not in shown)]
    return Table(nodes, await ordinals(look, {info.root_cause for info in nodes if info.root_cause}), reply.more)


def _microseconds(text: str) -> int:
    if not text:
        return 0
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise RequestRejected(f"slower than {text!r}: write a number of seconds, such as 0.5")
    return round(seconds * 1_000_000)


async def ordinals(look: Look, ids: set[bytes]) -> dict[bytes, int]:
    """Return the ordinals of nodes, by ID, as far as the broker knows them."""
    if not ids:
        return {}
    reply = await look.ask("NameNodes", pb.NameNodesRequest(node=sorted(ids)[:1_000]))
    return {name.node: name.ordinal for name in reply.names}
