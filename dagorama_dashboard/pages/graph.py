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
from dagorama_dashboard.following.columns import Columns
from dagorama_dashboard.following.followers import Listener, read_columns
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
    """Return the functions of an instance and the edges between them."""
    id = instance_id(look)
    found, info = await asyncio.gather(
        look.recent("GetShape", pb.GetShapeRequest(instance=id), 1.0),
        look.ask("GetInstance", pb.GetInstanceRequest(instance=id)),
    )
    edges = [
        {"from": edge.source, "to": edge.target, "count": count, "kind": kind}
        for edge in found.edges
        for kind, count in (("value", edge.values), ("created", edge.created))
        if count
    ]
    data = {
        "definition": found.definition, "created": info.created, "ended": info.ended_at or None,
        "failed": info.failed, "nodes": found.nodes, "states": STATES,
        "functions": _functions(found.functions), "edges": edges, "counted": found.counted,
    }  # fmt: skip
    return Response(as_json(data), media_type="application/json")


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
    followed = look.site.followers.find(look.viewer, id)
    if followed is not None:
        columns = await followed.map(whole=not after)
    else:
        info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
        columns = await read_columns(look.viewer, id, Columns(info.created))
    return Response(as_json(columns.data(min(after, columns.count))), media_type="application/json")


# --- live -------------------------------------------------------------------------------------------------


async def live(look: Look) -> Response:
    """Return a stream of what changes: states of nodes, progress of functions, the end."""
    id = instance_id(look)
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=id))
    return StreamingResponse(_Live(look, id, info.created).messages(), media_type="text/event-stream")


class _Live:
    """One open drawing."""

    def __init__(self, look: Look, id: bytes, created: float) -> None:
        self._look, self._id, self._created = look, id, created
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
        async with self._look.site.followers.listening(self._look.viewer, self._id, self._created) as (followed, news):
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
        request = pb.WatchRequest(instance=self._id)
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
