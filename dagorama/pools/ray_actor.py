"""The part of a pool that runs on Ray: an actor that keeps a dagorama worker next to itself, and ends with it.

The dagorama worker is a process of its own, and holds the lifeline of the actor: if Ray kills the actor, or its process
dies, the worker ends at once, because Ray may give its CPUs and GPUs to others in the same moment.
"""

from __future__ import annotations

import threading
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # an extra

from dagorama.pools.hosted import HostedWorker
from dagorama.pools.worker_spec import WorkerSpec


class WorkerActor:
    """Holds the resources of a dagorama worker.

    A thread ends the actor when the worker has left. A method that waits for the worker would not do: the call of a
    pending actor is lost with the process that has made it.
    """

    def __init__(self, worker: WorkerSpec, member: str) -> None:
        """Start the worker with the GPUs that Ray has given to the actor."""
        self._hosted = HostedWorker(worker, member)
        handle = ray.get_runtime_context().current_actor
        threading.Thread(target=self._end_with_worker, args=(handle,), daemon=True).start()

    def _end_with_worker(self, handle: Any) -> None:
        self._hosted.wait()
        ray.kill(handle)

    def ping(self) -> int:
        """Return the process ID of the worker: the actor was started."""
        return self._hosted.pid

    def drain(self) -> None:
        """Tell the worker to leave, and do not wait."""
        self._hosted.drain()
