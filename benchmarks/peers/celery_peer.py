"""Celery on Redis: two prefork processes, late acknowledgement off, prefetching many; results in the same Redis.

REDIS says where that is: redis://127.0.0.1:PORT/0.
"""

from __future__ import annotations

import os
import sys
from subprocess import Popen

import measuring
from celery import Celery, chain, chord, group

MIB = measuring.MIB
app = Celery("celery_peer", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(
    task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"], worker_prefetch_multiplier=128,
    task_ignore_result=False, broker_connection_retry_on_startup=True, result_chord_join_timeout=300,
)  # fmt: skip
nothing, total, step, square, turned = (
    app.task(each, name=each.__name__)
    for each in (measuring.nothing, measuring.total, measuring.step, measuring.square, measuring.turned)
)


def fan(width: int) -> int:
    return chord(nothing.s(number) for number in range(width))(total.s()).get(timeout=600)


def in_a_row(length: int) -> int:
    return chain(step.s(0), *[step.s() for _ in range(length - 1)])().get(timeout=600)


def many(instances: int) -> list[int]:
    made = [chord(square.s(n + offset) for offset in range(4))(total.s()) for n in range(instances)]
    return [each.get(timeout=600) for each in made]


def turn(blocks: list[bytes]) -> list[bytes]:
    return group(turned.s(block) for block in blocks)().get(timeout=600)


def main() -> None:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_peer",
        "worker",
        "--concurrency",
        "2",
        "--pool",
        "prefork",
        "--loglevel",
        "ERROR",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    # Without this word it runs no pickle as root, as which a container may well measure.
    with Popen(command, env={**os.environ, "C_FORCE_ROOT": "1"}) as worker:
        try:
            fan(16)
            measuring.report_fan(2_000, fan)
            measuring.report_chain(200, in_a_row)
            measuring.report_round_trip(300, lambda number: nothing.delay(number).get(timeout=60))
            measuring.report_many(1000, many)
            measuring.report_values(32, 4 * MIB, turn)
        finally:
            worker.terminate()


if __name__ == "__main__":
    main()
