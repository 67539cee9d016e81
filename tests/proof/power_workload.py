"""What runs while its writes are recorded: a broker's writer on a SQLite store; each acknowledgement goes into `acks`.

An acknowledgement is a line in the same log, so that it has its place among the writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler import NewNodes, Scheduler, WorkerInfo
from dagorama_broker.store import folders, large_values
from dagorama_broker.store.sqlite import connection, database
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import begun

CLIENTS = 4


def weaken(how: str) -> None:
    """Break what the proof is to notice."""
    connect = connection.connect
    if how in ("OFF", "NORMAL"):

        def weaker(path: Path, busy: float) -> Any:
            connection = connect(path, busy)
            connection.execute(f"PRAGMA synchronous = {how}")
            return connection

        connection.connect = database.connect = weaker  # type: ignore[attr-defined]  # imported
    elif how == "folders not synced":
        folders.sync_folder = large_values.sync_folder = lambda folder: None  # type: ignore[attr-defined]  # imported
    elif how == "ack-before-commit":
        commit = Broker._commit

        async def late(self: Broker, changes: Any) -> None:
            await asyncio.sleep(0.001)  # else a short commit would be made before anybody is told
            await commit(self, changes)

        async def early(self: Broker, changes: Any) -> None:
            self.late = asyncio.create_task(late(self, changes))  # type: ignore[attr-defined]

        Broker._commit = early  # type: ignore[method-assign]


class Workload:
    def __init__(self, folder: Path, instances: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.left = instances
        self.store = SqliteStore(folder / "store.db")
        self._acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledged(self, **what: str) -> None:
        os.write(self._acks, json.dumps(what).encode() + b"\n")

    async def run(self) -> None:
        scheduler = Scheduler(await asyncio.to_thread(begun, self.store))
        now = time.monotonic()
        scheduler.restore(self.store.live(), now, time.time() - now)
        broker = Broker(scheduler, self.store)
        running = asyncio.create_task(broker.run())
        working = asyncio.create_task(self._work(broker))
        await asyncio.gather(*(self._spawn(broker) for _ in range(CLIENTS)))
        working.cancel()
        broker.stop()
        await running

    async def _spawn(self, broker: Broker) -> None:
        while self.left > 0:
            self.left -= 1
            instance, origin = self.chance.randbytes(16), self.chance.randbytes(12)
            functions = [Function("work", "h", "work")]
            arguments = [self.chance.randbytes(self.chance.choice((10, 300, 3_000))) for _ in range(3)]
            run = NewNodes(instance, origin, 0, functions, [0] * 3, arguments, creates=("work:Work", origin + bytes(4)))
            await broker.submissions.submit([run])
            self.acknowledged(instance=instance.hex(), origin=origin.hex())
            if self.chance.random() < 0.15:
                content = self.chance.randbytes(self.chance.choice((1_000, 9_000, 70_000)))
                digest, _ = await asyncio.to_thread(self.store.put_large, [content[:500], content[500:]])
                assert digest == sha256(content).digest()
                self.acknowledged(large=digest.hex())

    async def _work(self, broker: Broker) -> None:
        """A worker that completes whatever it is given."""
        worker = broker.scheduler.connect(WorkerInfo(b"w" * 16, "worker", 2), (), broker.see_time())
        session = broker.sessions[worker] = Session(worker)
        broker.commits.mark_changed()
        while True:
            news, done = await session.next(), []
            for slot, node, attempt in news.granted:
                value = self.chance.randbytes(40)
                broker.scheduler.complete(slot.worker, node.key, attempt, value, 100, (), (), {}, (), broker.see_time())
                assert node.block is not None
                done.append((node.block.id_of(node.key), value))
            await broker.commits.wait_durable()
            for id, value in done:
                self.acknowledged(node=id.hex(), value=value.hex())


def main() -> None:
    folder, how, instances, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    connection.CHECKPOINT_PAGES = 60  # so that the log goes to its places often
    weaken(how)
    asyncio.run(Workload(folder, instances, seed).run())
    os._exit(0)  # as if it ran on: nothing is tidied up


if __name__ == "__main__":
    main()
