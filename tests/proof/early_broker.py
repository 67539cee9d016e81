"""A broker whose commits its parent holds up: `python -m tests.proof.early_broker STORE [weaker]`.

It prints its port, then "held" for each commit that waits. A line on stdin says "hold", or "go" to the one that waits.
A weaker broker uses keys again that it has granted and not stored.
"""

from __future__ import annotations

import asyncio
import os
import sys
from threading import Thread

from dagorama_broker.scheduler import workers
from dagorama_broker.settings import Settings
from tests.support.gate import Gate
from tests.support.raw import serving


async def serve(store: str) -> None:
    values = os.environ.get("DAGORAMA_VALUES", "")  # PostgreSQL needs a folder for them
    async with serving(Settings(port=0, store=store, values=values, reconnect_wait=2.0)) as served:
        gates: list[Gate] = []

        def obey() -> None:
            for line in sys.stdin:
                if line.strip() == "hold":
                    gates.append(Gate(served, patience=None, on_held=lambda: print("held", flush=True)))
                else:
                    gates[0].let_through()
                print("heard", flush=True)

        Thread(target=obey, daemon=True).start()
        print(served.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2:] == ["weaker"]:
        workers.KEYS_LEFT_OUT = 0  # type: ignore[attr-defined]  # the module imports it
    asyncio.run(serve(sys.argv[1]))
