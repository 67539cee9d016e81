"""One byte changed anywhere in a store: the broker answers as before, or says which row or file is damaged.

Never another answer, never a hang. `python -m tests.proof.damage [--flips N] [--seed N]` ends with 1 otherwise. The
store is one that a simulated broker has left in the middle of its work; all that a broker reads from it is asked for.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sys
import time
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.errors import StoreError
from dagorama_broker.model.delays import DelayRow
from dagorama_broker.model.key_pauses import KeyPauseRow
from dagorama_broker.model.rows import Changes, InstanceEnd, KeyRow
from dagorama_broker.rpc.limits import CallLimiter, RequestLimits, WorkerConfig
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.service import BrokerService
from dagorama_broker.scheduler import Scheduler
from dagorama_broker.store.memory.store import MemoryStore
from dagorama_broker.store.sqlite.store import SqliteStore
from dagorama_testing.calls import Aborted, CallContext
from dagorama_testing.loop import START
from tests.support.records import begun

from ..simulation.life import Life
from ..simulation.loop import simulated
from .progress import made, patience

#: Seconds after which something hangs.
PATIENCE = patience(10.0)
#: Nodes that have not ended, in the store that is damaged.
LEAST = 6
#: What an error has to say: whose content is wrong.
NAMES_IT = re.compile(r"row|table|node|store\.db|damaged|[0-9a-f]{64}")


def changes_of(memory: MemoryStore) -> Changes:
    """All that a store in memory holds, as one commit."""
    tables = memory.tables
    changes = Changes(
        functions=list(tables.functions.values()), blocks=list(tables.blocks), nodes=list(tables.nodes.values()),
        instances=[stored.row for stored in tables.instances.values()], outcomes=list(tables.outcomes.values()),
        progress=list(tables.progress.values()), keys=[KeyRow(*row) for row in tables.concurrency_keys.items()],
        delays=[DelayRow(key, *delay) for key, delay in tables.delays.items()],
        workers_joined=list(tables.workers.items()), turns=list(tables.marks.turns.values()),
        key_pauses=[*tables.key_pauses.values(), KeyPauseRow("rates:Crawl.fetch", "tenant-7", 0, 9e9, 60.0, 1)],
    )  # fmt: skip
    changes.instance_ends = [InstanceEnd(key, stored.ended, stored.failed) for key, stored in tables.instances.items()]
    return changes


def half_done(folder: Path, seed: int) -> tuple[list[tuple[bytes, list[bytes]]], bytes]:
    """A store with work of every kind, half done; its instances with their nodes, and the name of a large value."""
    life = next(life for life in map(_lived, count(seed)) if len(life.watcher.unfinished) >= LEAST)
    store = SqliteStore(folder / "store.db")
    begun(store)
    store.commit(changes_of(life.disk))
    sha256, _ = store.put_large([random.Random(seed).randbytes(5_000)])
    ids = store.ids(list(life.disk.tables.nodes))
    store.close()
    instances = [
        (stored.row.id, [ids[row.key] for row in life.disk.tables.nodes.values() if row.instance == key])
        for key, stored in life.disk.tables.instances.items()
    ]
    return instances, sha256


def _lived(seed: int) -> Life:
    """Four seconds of a life in which nothing goes wrong."""
    life = Life(seed)
    life.strikes = 0
    with simulated(life.loop, life.clock):
        life.begin()
        life.loop.run_until(START + 4.0)
        life._end()
    return life


class Questions:
    """All that a broker is asked; an answer is bytes, or the sentence of an error."""

    def __init__(self, instances: list[tuple[bytes, list[bytes]]], sha256: bytes) -> None:
        self._instances, self._sha256 = instances, sha256

    async def ask(self, path: Path) -> list[bytes | str]:
        store = SqliteStore(path, busy=0.0)
        try:
            epoch = begun(store)
            scheduler, now = Scheduler(epoch), time.monotonic()
            scheduler.restore(store.live(), now, time.time() - now)
            scheduler.awaited, scheduler.dispatch_paused_until = set(), None
            broker = Broker(scheduler, store, keeping=RetentionPolicy(inf, inf, inf))
            memory = MemoryGuard(1 << 40, broker.memory_size)
            running = asyncio.create_task(broker.run())
            asking = asyncio.create_task(
                self._ask(BrokerService(broker, WorkerConfig(), RequestLimits(), memory, CallLimiter(100)))
            )
            try:
                await asyncio.wait([asking, running], return_when=asyncio.FIRST_COMPLETED)
                return [str(running.exception())] if running.done() else await asking
            finally:
                asking.cancel()
                broker.stop()
                await asyncio.gather(running, return_exceptions=True)
        except StoreError as error:
            return [str(error)]
        finally:
            store.close()

    async def _ask(self, service: BrokerService) -> list[bytes | str]:
        context: Any = CallContext()
        answers = []
        for instance, nodes in self._instances:
            answers.append(await _answer(_one(service.GetInstance(pb.GetInstanceRequest(instance=instance), context))))
            request = pb.WaitRequest(instance=instance, node=nodes, now=True)
            answers.append(await _answer(service.Wait(request, context)))
        answers.append(await _answer(service.GetValue(pb.GetValueRequest(sha256=self._sha256), context)))
        answers.append(await _answer(self._grants(service, context)))
        return answers

    async def _grants(self, service: BrokerService, context: Any) -> AsyncIterator[pb.BrokerMessage]:
        """What a worker is given first: arguments and the values of sources are read for it."""
        ended = asyncio.Event()
        hello = pb.Hello(protocol=1, worker=b"w" * 16, name="w", slots=8, tolerations=["GPU", "TPU"])

        async def says() -> AsyncIterator[pb.WorkerMessage]:
            yield pb.WorkerMessage(hello=hello)
            await ended.wait()

        try:
            async for message in service.Work(says(), context):
                yield message
                if message.grants:
                    return
        finally:
            ended.set()


async def _one(reply: Any) -> AsyncIterator[Any]:
    yield await reply


async def _answer(replies: AsyncIterator[Any]) -> bytes | str:
    try:
        return b"".join([reply.SerializeToString(deterministic=True) async for reply in replies])
    except (Aborted, StoreError) as error:
        return str(error)


@dataclass
class Verdict:
    flips: int = 0
    same: int = 0
    errors: int = 0
    wrong: list[str] = field(default_factory=list)


async def flip_all(folder: Path, flips: int, seed: int) -> Verdict:
    chance, verdict = random.Random(seed), Verdict()
    whole = folder / "whole"
    whole.mkdir()
    instances, sha256 = half_done(whole, seed)
    questions = Questions(instances, sha256)
    async with asyncio.timeout(PATIENCE):
        right = await questions.ask(_copy(whole, folder / "right"))
    assert all(isinstance(answer, bytes) and answer for answer in right), right
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.is_file() and file.suffix != ".lock"]
    sizes = [(whole / file).stat().st_size for file in files]
    for number in range(flips):
        # A tenth goes to the large value, which is a small part of the bytes.
        file = files[sizes.index(min(sizes))] if number % 10 == 0 else chance.choices(files, sizes)[0]
        copy = _copy(whole, folder / f"flip{number}")
        place, bit = _place(whole / file, chance), chance.randrange(1, 256)
        _flip(copy.parent / file, place, bit)
        try:
            async with asyncio.timeout(PATIENCE):
                answers = await questions.ask(copy)
        except TimeoutError:
            answers = ["it hangs"]
        except Exception as error:
            answers = [f"it breaks: {error!r}"]
        _judge(verdict, f"byte {place} of {file} changed by {bit}", answers, right)
        shutil.rmtree(copy.parent)
        made()
    return verdict


def _place(file: Path, chance: random.Random) -> int:
    """Anywhere; mostly where something is written, for most of a small database is empty pages."""
    written = _written(file)
    return chance.choice(written) if chance.random() < 0.8 else chance.randrange(file.stat().st_size)


@cache
def _written(file: Path) -> list[int]:
    return [place for place, byte in enumerate(file.read_bytes()) if byte]


def _judge(verdict: Verdict, what: str, answers: list[bytes | str], right: list[bytes | str]) -> None:
    verdict.flips += 1
    errors = [answer for answer in answers if isinstance(answer, str)]
    verdict.wrong += [f"{what}: {error}" for error in errors if not NAMES_IT.search(error)]
    if len(answers) == len(right):
        pairs = zip(answers, right, strict=True)
        verdict.wrong += [f"{what}: another answer" for one, other in pairs if isinstance(one, bytes) and one != other]
    verdict.errors += bool(errors)
    verdict.same += not errors


def _copy(whole: Path, to: Path) -> Path:
    shutil.copytree(whole, to)
    return to / "store.db"


def _flip(file: Path, place: int, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        [byte] = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ bit]))


def prove(flips: int, seed: int) -> Verdict:
    with TemporaryDirectory(prefix="damage-") as folder:
        return asyncio.run(flip_all(Path(folder), flips, seed))


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.damage", description="One byte changed anywhere in a store.")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    verdict = prove(options.flips, options.seed)
    print(f"{verdict.flips} bytes changed: {verdict.errors} errors that name it, {verdict.same} times the same answers,"
          f" {len(verdict.wrong)} wrong")  # fmt: skip
    for wrong in verdict.wrong[:10]:
        print(f"VIOLATION {wrong}")
    return int(bool(verdict.wrong))


if __name__ == "__main__":
    sys.exit(main())
