"""A broker that is killed, and the one that goes on with its store."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.raw import Given, RawWorker, Served, serving


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/store"


@asynccontextmanager
async def killed(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """Serve with a store that is left, at the end of the block, as SIGKILL would leave it."""
    running = folder / "running"
    async with serving(store=url(running), **settings) as served:
        yield served
        await served.broker.commits.wait_durable()
        shutil.copytree(running, folder / "found", ignore=shutil.ignore_patterns("*.lock"))


def after(folder: Path, **settings: Any) -> Any:
    """Serve with the store that `killed` has left."""
    return serving(store=url(folder / "found"), **{"reconnect_wait": 5.0, **settings})


def again(served: Served, worker: RawWorker, *held: Given) -> RawWorker:
    """Return a worker that reconnects to the next broker as `worker`, with the nodes that it holds."""
    reconnecting = RawWorker(
        served.stub, **worker.identity, slots=worker.hello.slots, held_node=[node.key for node in held],
        held_attempt=[node.attempt for node in held], held_slot=[node.slot for node in held],
    )  # fmt: skip
    served.workers.append(reconnecting)
    return reconnecting
