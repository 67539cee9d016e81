"""The part of a pool that runs in Dask workers: a plugin that keeps a dagorama worker next to each of them.

The dagorama worker is a process of its own. A task would block a thread of the Dask worker, and count as its work.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin  # pyright: ignore[reportMissingImports]  # an extra

from dagorama.pools.hosted import HostedWorker

if TYPE_CHECKING:
    from dagorama.pools.worker_spec import WorkerSpec

#: States of a Dask worker, for the pool.
FREE, RUNNING, ENDED = "free", "running", "ended"


def plugin_name(pool: str) -> str:
    """Return the name under which Dask knows the plugin of a pool."""
    return f"dagorama-{pool}"


class DagoramaPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not installed where the types are checked
    """A dagorama worker next to the Dask worker: `eager`, as soon as that has started, or else when a pool asks.

    It drains when the Dask worker is closed, and ends at once if that is killed.
    """

    idempotent = True  # the next process of a pool leaves the workers of the one before

    def __init__(self, worker: WorkerSpec, eager: bool = True) -> None:
        self.name = plugin_name(worker.pool)
        self._spec = worker
        self._eager = eager
        self._hosted: HostedWorker | None = None
        self._member = ""

    def setup(self, worker: Any) -> None:
        """Take a Dask worker; called by Dask in it."""
        self._member = f"{worker.name}"
        if self._eager:
            self.start(self._spec)

    def start(self, worker: WorkerSpec) -> bool:
        """Start a dagorama worker unless one runs; return whether it was started."""
        if self.state == RUNNING:
            return False
        self._hosted = HostedWorker(worker, self._member)
        return True

    @property
    def state(self) -> str:
        """FREE, RUNNING or ENDED."""
        if self._hosted is None:
            return FREE
        if self._hosted.exit_code is None:
            return RUNNING
        self._hosted.let_go()
        return ENDED

    def drain(self) -> None:
        """Tell the dagorama worker to leave, and do not wait."""
        if self._hosted is not None:
            self._hosted.drain()

    async def teardown(self, worker: Any) -> None:
        """Let the dagorama worker leave before the Dask worker is closed; called by Dask."""
        if self._hosted is not None:
            self._hosted.drain()
            await asyncio.to_thread(self._hosted.join)


# --- called by a pool, in each Dask worker --------------------------------------------------------------------


def state_there(pool: str, dask_worker: Any) -> str | None:
    """Return the state of the plugin; None if the Dask worker does not have it yet."""
    plugin = dask_worker.plugins.get(plugin_name(pool))
    return None if plugin is None else str(plugin.state)


def start_there(worker: WorkerSpec, dask_worker: Any) -> bool:
    """Start a dagorama worker; return whether it was started. Raises OSError if the system refuses the process."""
    plugin = dask_worker.plugins.get(plugin_name(worker.pool))
    return plugin is not None and bool(plugin.start(worker))


def drain_there(pool: str, dask_worker: Any) -> None:
    """Tell the dagorama worker to leave."""
    plugin = dask_worker.plugins.get(plugin_name(pool))
    if plugin is not None:
        plugin.drain()
