"""A broker whose commits its parent holds up: `python -m tests.proof.early_broker STORE [weaker]`.

It prints its port, then "held" for each commit that waits. A line on stdin says "hold", or "go" to the one that waits.
A weaker broker uses keys again that it has granted and not stored.
"""

from __future__ import annotations

import asyncio
import os
import sys
from threading import Event, Semaphore, Thread
from typing import Any

from dagorama_broker.scheduler import workers
from dagorama_broker.settings import Settings
from tests.support.raw import serving


async def serve(store: str) -> None:
    values = os.environ.get("DAGORAMA_VALUES", "")  # PostgreSQL needs a folder for them
    holds, passes = Event(), Semaphore(0)

    def obey() -> None:
        for line in sys.stdin:
            (passes.release if line.strip() == "go" else holds.set)()
            print("heard", flush=True)

    async with serving(Settings(port=0, store=store, values=values, reconnect_wait=2.0)) as served:
        commit = served.broker.store.commit

        def held_up(changes: Any) -> None:
            if holds.is_set():
                print("held", flush=True)
                passes.acquire()
            commit(changes)

        served.broker.store.commit = held_up  # type: ignore[method-assign]  # the parent decides when
        # In its thread: the loop has to go on, which grants nodes meanwhile.
        served.broker.commits.thread.may_commit_outside = lambda changes: False  # type: ignore[method-assign]
        Thread(target=obey, daemon=True).start()
        print(served.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2:] == ["weaker"]:
        workers.KEYS_LEFT_OUT = 0  # type: ignore[attr-defined]  # it is imported there
    asyncio.run(serve(sys.argv[1]))
