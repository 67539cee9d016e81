"""Celery on Redis, its worker with two processes (prefork) or two threads; results in the same Redis.

As its documentation recommends for many short tasks: a high prefetch multiplier, no late acknowledgement, no events, no
gossip, mingle or heartbeat, and hiredis. PEERS_REDIS has the address of Redis.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import ClassVar, Self

import celery
from celery import Celery, chain, chord, group

from peers import functions
from peers.functions import Summary
from peers.parts import Pipeline, by_callers

WAIT = 120  #: seconds for a result
app = Celery("celery_stack", broker=os.environ["PEERS_REDIS"], backend=os.environ["PEERS_REDIS"])
app.conf.update(
    task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"], worker_prefetch_multiplier=128,
    task_acks_late=False, worker_disable_rate_limits=True, worker_send_task_events=False, result_chord_join_timeout=300,
    broker_connection_retry_on_startup=True,
)  # fmt: skip
nothing, total, step, square, turned, begin, hand_on, summary = (
    app.task(each, name=each.__name__) for each in functions.NODES
)


class Prefork:
    pool: ClassVar[str] = "prefork"

    def __enter__(self) -> Self:
        command = [
            sys.executable, "-m", "celery", "-A", "peers.stacks.celery_stack", "worker", "--concurrency", "2",
            "--pool", self.pool, "--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat",
        ]  # fmt: skip
        # Without the variable it refuses to unpickle as root, the user of many containers.
        self._worker = subprocess.Popen(command, env={**os.environ, "C_FORCE_ROOT": "1"}, stdout=sys.stderr)
        return self

    def __exit__(self, *raised: object) -> None:
        self._worker.terminate()
        self._worker.wait()

    def version(self) -> str:
        return f"Celery {celery.__version__}"

    def one(self, number: int) -> int:
        return nothing.delay(number).get(timeout=WAIT)

    def fan(self, width: int) -> int:
        return chord(nothing.s(number) for number in range(width))(total.s()).get(timeout=WAIT)

    def chain(self, length: int) -> int:
        return chain(step.s(0), *[step.s() for _ in range(length - 1)])().get(timeout=WAIT)

    hop = chain

    def small(self, instances: int, callers: int) -> list[int]:
        return [each.get(timeout=WAIT) for each in by_callers(_small, instances, callers)]

    def together(self, instances: int) -> list[int]:
        """Submit one after the other: no call submits several graphs."""
        return self.small(instances, 1)

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        return group(turned.s(block) for block in blocks)().get(timeout=WAIT)

    def pipeline(self, wanted: Pipeline) -> Summary:
        nodes = [hand_on.s(number) for number in range(wanted.handed)]
        return chain(begin.s(wanted.pattern, wanted.size), *nodes, summary.s(wanted.handed))().get(timeout=WAIT)


class Threads(Prefork):
    pool = "threads"


def _small(number: int) -> object:
    return chord(square.s(number + offset) for offset in range(4))(total.s())
