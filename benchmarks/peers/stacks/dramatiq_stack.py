"""Dramatiq on Redis: two worker processes with a thread each; results in the same Redis.

It has no step that gets the results of several tasks: as its documentation shows, the caller collects a group's results
and sends the next message. Idle workers ask Redis every 2 ms instead of every second, because its client does not wait
for messages. PEERS_REDIS has the address of Redis.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import Self

import dramatiq
import redis
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers import functions
from peers.functions import Summary
from peers.parts import Pipeline, by_callers

WAIT = 120_000  #: milliseconds for a result
encoder = dramatiq.PickleEncoder()
dramatiq.set_encoder(encoder)
broker = RedisBroker(url=os.environ["PEERS_REDIS"])
# Without a limit on the socket, because the backend waits there for results.
results = redis.Redis.from_url(os.environ["PEERS_REDIS"], socket_timeout=None)
broker.add_middleware(Results(backend=RedisBackend(client=results, encoder=encoder)))
dramatiq.set_broker(broker)
nothing, total, step, square, turned, begin, hand_on, summary = (
    dramatiq.actor(each, actor_name=each.__name__, store_results=True, max_retries=0) for each in functions.NODES
)


class Dramatiq:
    def __enter__(self) -> Self:
        command = [
            sys.executable, "-m", "dramatiq", "peers.stacks.dramatiq_stack", "--processes", "2", "--threads", "1",
            "--skip-logging",
        ]  # fmt: skip
        settings = {"dramatiq_worker_timeout": "2", "dramatiq_queue_prefetch": "64"}
        self._worker = subprocess.Popen(command, env={**os.environ, **settings}, stdout=sys.stderr)
        return self

    def __exit__(self, *raised: object) -> None:
        self._worker.terminate()
        self._worker.wait()

    def version(self) -> str:
        return f"dramatiq {version('dramatiq')}"

    def one(self, number: int) -> int:
        return _result(nothing.send(number))

    def fan(self, width: int) -> int:
        values = group(nothing.message(number) for number in range(width)).run().get_results(block=True, timeout=WAIT)
        return _result(total.send(list(values)))

    def chain(self, length: int) -> int:
        made = pipeline([step.message(0), *[step.message() for _ in range(length - 1)]]).run()
        return made.get_result(block=True, timeout=WAIT)

    hop = chain

    def small(self, instances: int, callers: int) -> list[int]:
        made = by_callers(_squares, instances, callers)
        sums = [total.send(list(each.get_results(block=True, timeout=WAIT))) for each in made]
        return [_result(each) for each in sums]

    def together(self, instances: int) -> list[int]:
        """Submit one after the other: no call submits several graphs."""
        return self.small(instances, 1)

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        made = group(turned.message(block) for block in blocks).run()
        return list(made.get_results(block=True, timeout=WAIT))

    def pipeline(self, wanted: Pipeline) -> Summary:
        nodes = [hand_on.message(number=number) for number in range(wanted.handed)]
        made = pipeline([begin.message(wanted.pattern, wanted.size), *nodes, summary.message(handed=wanted.handed)])
        return made.run().get_result(block=True, timeout=WAIT)


def _squares(number: int) -> group:
    return group(square.message(number + offset) for offset in range(4)).run()


def _result(message: dramatiq.Message) -> int:
    return message.get_result(block=True, timeout=WAIT)
