"""The data of the drawings of an instance, as JSON, and its live stream."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response, StreamingResponse

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError
from dagorama.models.state import State
from dagorama_dashboard.following.columns import MOST_NODES
from dagorama_dashboard.following.followers import Listener
from dagorama_dashboard.pages.instance import instance_id
from dagorama_dashboard.shown.formats import function_label
from dagorama_dashboard.web.look import SLOW, Look
from dagorama_dashboard.web.rendering import sent

#: Seconds between two messages about nodes, and about the progress of functions.
NODES_INTERVAL, PROGRESS_INTERVAL = 0.25, 0.5
STATES = [state.name for state in State]


def as_json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


async def shape(look: Look) -> Response:
    """Return the functions of an instance and the edges between them.

    The edges are counted here, from the same columns that the other drawings use, as long as these have all nodes.
    """
    id = instance_id(look)
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
    if info.nodes > MOST_NODES:
        found = await look.recent("GetShape", pb.GetShapeRequest(instance=id), 1.0)
        functions, edges, counted = found.functions, _edges_of(found), found.counted
    else:
        columns = await look.site.followers.follow(look.viewer, info).map(fresh=False)
        functions = (await look.site.progress.latest(look.viewer, id)).functions
        edges, counted = await asyncio.to_thread(columns.edges), columns.count
    places = {each.function: place for place, each in enumerate(functions)}
    data = {
        "definition": info.definition, "created": info.created, "ended": info.ended_at or None,
        "failed": info.failed, "nodes": info.nodes, "states": STATES, "functions": _functions(functions),
        "edges": [
            {"from": places[source], "to": places[target], "count": count, "kind": kind}
            for (source, target, kind), count in edges.items()
            if source in places and target in places  # a function may be newer than the progress that was told
        ],
        "counted": counted,
    }  # fmt: skip
    return Response(as_json(data), media_type="application/json")


def _edges_of(found: pb.Shape) -> dict[tuple[str, str, str], int]:
    names = [each.function for each in found.functions]
    return {
        (names[edge.source], names[edge.target], kind): count
        for edge in found.edges
        for kind, count in (("value", edge.values), ("created", edge.created))
        if count
    }


def _functions(functions: Iterable[pb.FunctionProgress]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.function, "label": function_label(each.function), "nodes": list(each.nodes),
            "timed": each.timed, "seconds": each.run_seconds, "longest": each.longest_seconds,
        }
        for each in functions
    ]  # fmt: skip


async def node_map(look: Look) -> Response:
    """Return the nodes of an instance as columns, all of them or those after an ordinal."""
    id, after = instance_id(look), look.number("after")
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
    columns = await look.site.followers.follow(look.viewer, info).map(fresh=not after)
    return Response(as_json(columns.data(min(after, columns.count))), media_type="application/json")


# --- live -------------------------------------------------------------------------------------------------


async def live(look: Look) -> Response:
    """Return a stream of what changes: states of nodes, progress of functions, the end."""
    id = instance_id(look)
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
    return StreamingResponse(_Live(look, info).messages(), media_type="text/event-stream")


class _Live:
    """One open drawing."""

    def __init__(self, look: Look, info: pb.InstanceInfo) -> None:
        self._look, self._info = look, info
        self._out: asyncio.Queue[str | None] = asyncio.Queue(16)  # a page that does not read holds its stream up
        self._interval = SLOW if look.pace == "5" else NODES_INTERVAL

    async def messages(self) -> AsyncIterator[str]:
        """Yield messages until the instance has ended, or the dashboard stops."""
        tasks = [asyncio.create_task(part) for part in (self._follow(), self._stop())]
        try:
            while (message := await self._out.get()) is not None:
                yield message
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self) -> None:
        await self._look.site.stopping.wait()
        await self._out.put(None)

    async def _follow(self) -> None:
        parts = [asyncio.create_task(part) for part in (self._nodes(), self._progress())]
        try:
            await asyncio.gather(*parts)
            await self._put("ended", {})
        except BrokerError as error:  # the browser opens the stream again
            await self._put("problem", {"text": f"{error}"})
        finally:
            for part in parts:
                part.cancel()
        await self._out.put(None)

    async def _nodes(self) -> None:
        followed = self._look.site.followers.follow(self._look.viewer, self._info)
        with followed.listening() as news:
            is_over = False
            while not is_over:
                await news.news.wait()
                if news.error is not None:
                    raise news.error
                is_over = news.is_over
                await self._tell(news, followed.columns.nodes)
                await asyncio.sleep(0 if is_over else self._interval)

    async def _tell(self, news: Listener, nodes: int) -> None:
        states, is_all = news.take()
        if is_all:
            await self._put("nodes", {"all": True})
        else:
            told = b64encode(bytes(states.values())).decode()
            await self._put("nodes", {"o": list(states), "s": told, "nodes": nodes})

    async def _progress(self) -> None:
        request = pb.WatchRequest(instance=self._info.instance)
        async with aclosing(self._look.viewer.follow("Watch", request)) as states:
            async for progress in states:
                await self._put("progress", {
                    "definition": progress.definition, "created": progress.created,
                    "ended": progress.ended_at or None, "failed": progress.failed,
                    "nodes": sum(sum(each.nodes) for each in progress.functions), "states": STATES,
                    "functions": _functions(progress.functions),
                })  # fmt: skip
                if not progress.ended:
                    await asyncio.sleep(max(self._interval, PROGRESS_INTERVAL))

    async def _put(self, event: str, data: Any) -> None:
        await self._out.put(sent(as_json(data), event))
