"""`inline()`: a broker and its workers in the thread of a test, on a clock that stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from dagorama.client.connection import using
from dagorama.client.large_values import broker_values
from dagorama.graph.definitions import constructed_again
from dagorama.models.method_types import NodeMethod, UnboundNodeMethod
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.launch import fresh_key
from dagorama_testing.broker import InlineBroker
from dagorama_testing.connection import InlineConnection
from dagorama_testing.driver import Driver
from dagorama_testing.records import NodeRun, SimulatedWorker
from dagorama_testing.rules import Rules
from dagorama_testing.worker import InlineWorker

P = ParamSpec("P")
R = TypeVar("R")
Method = NodeMethod[Any] | UnboundNodeMethod[Any] | Callable[..., Any]
DEFAULT_WORKERS = (SimulatedWorker(),)
DAY = 86_400.0


class WorldClock:
    """The clock of a world. Nodes take no time; it moves by `advance`, and when the world jumps to what is due."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def passed(self) -> float:
        """Seconds since the start of the world."""
        return self._driver.broker.elapsed

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._driver.broker.clock.monotonic()

    def time(self) -> float:
        """Return seconds since 1970."""
        return self._driver.broker.clock.time()

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        """Let time pass: everything that happens within `seconds` happens, and nodes that become ready run.

        Raises ValueError if `seconds` is negative or not finite.
        """
        if not isfinite(seconds) or seconds < 0:
            raise ValueError(f"the clock cannot advance by {seconds!r} seconds: pass a number from 0 up")
        self._driver.drive(lambda: False, self.monotonic() + seconds)

    def sleep(self, seconds: float, /) -> None:
        """Let time pass, as `advance` does."""
        self.advance(seconds)


class World:
    """A broker and simulated workers; within `with inline() as world:` all functions of dagorama use it.

    Nodes run when the test says `run()`, advances the clock, or waits: in this thread, one after another.
    """

    def __init__(self, driver: Driver, rules: Rules) -> None:
        self._driver = driver
        self._rules = rules
        self.clock = WorldClock(driver)

    # --- running --------------------------------------------------------------------------------------

    def run(self, nodes: int | None = None) -> int:
        """Run nodes until nothing more can happen, or at most `nodes` attempts; return how many were begun.

        When no node is ready the clock jumps to what is due next: a retry, a delay, the timeout of a queue. A node that
        fails fails as in production: nothing is raised here. Raises ValueError if `nodes` is not a number from 1 up,
        and RuntimeError if the world has ended.
        """
        before = self._driver.nodes
        self._driver.drive(self._enough(before, nodes))
        return self._driver.nodes - before

    async def arun(self, nodes: int | None = None) -> int:
        """Run nodes as `run` does; async nodes run on the running event loop, next to other tasks of the test."""
        before = self._driver.nodes
        await self._driver.adrive(self._enough(before, nodes))
        return self._driver.nodes - before

    def _enough(self, before: int, nodes: int | None) -> Callable[[], bool]:
        if nodes is not None and (isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1):
            raise ValueError(f"run() got nodes={nodes!r}: it must be a number from 1 up, or None for all")
        most = inf if nodes is None else nodes
        return lambda: self._driver.nodes - before >= most

    # --- what happens in nodes ------------------------------------------------------------------------

    def fail(self, method: Method, error: BaseException | type[BaseException], *, times: int | None = 1) -> None:
        """Raise an exception in the next `times` runs of a decorated method instead of running it; None: in all."""
        self._rules.fail(method, error, times)

    def replace(
        self, method: UnboundNodeMethod[Callable[Concatenate[Any, P], R]], by: Callable[Concatenate[Any, P], R]
    ) -> None:
        """Run another function, with the same parameters and `self`, whenever a decorated method would run."""
        self._rules.replace(method, by)

    def runs_of(self, method: Method) -> list[NodeRun]:
        """Return the attempts of nodes of a decorated method, in the order in which they began."""
        return self._rules.runs_of(method)

    @property
    def runs(self) -> list[NodeRun]:
        """All attempts, in the order in which they began."""
        return [run for _, run in self._rules.runs]

    def error_of(self, node_id: UUID | None) -> NodeRun | None:
        """Return the last attempt of a node that raised an exception, which is its `error`; None if there is none."""
        found = (worker.executor.errors.get(node_id) for worker in self._driver.workers) if node_id else ()
        return next((run for run in found if run is not None), None)

    # --- faults ---------------------------------------------------------------------------------------

    def die(self, method: Method, *, times: int | None = 1) -> None:
        """Let the child process die in the next `times` runs of a decorated method; None: in all."""
        self._rules.die(method, times)

    def lose(self, method: Method, *, times: int | None = 1) -> None:
        """Lose the worker, with its connection, in the next `times` runs of a decorated method; None: in all.

        Another worker of the same kind connects at once.
        """
        self._rules.lose(method, times)

    def hang(self, method: Method, *, times: int | None = 1) -> None:
        """Let the next `times` runs of a decorated method not end, so that they are stopped at its timeout; None: all.

        Raises ValueError if the method has no timeout.
        """
        self._rules.hang(method, times)

    def restart_broker(self) -> None:
        """Crash the broker at once, and restart it on its store; a node may call this, too."""
        self._driver.restart_broker()

    def add_worker(self, worker: SimulatedWorker) -> None:
        """Let another worker connect, as soon as time passes or nodes run."""
        self._driver.check_open()
        if not isinstance(worker, SimulatedWorker):
            raise TypeError(f"a world takes workers such as SimulatedWorker(tolerations=['GPU']), not {worker!r}")
        values = broker_values()
        added = InlineWorker(self._driver.broker, worker, self._rules, values)
        self._driver.workers.append(added)

    def close(self) -> None:
        """End the world. Raises RuntimeError if something in the broker has failed unnoticed."""
        self._driver.close()
        if failures := self._driver.broker.loop.failures:
            raise RuntimeError("the broker of this world has failed") from failures[0]


@contextmanager
def inline(
    workers: Sequence[SimulatedWorker] = DEFAULT_WORKERS,
    *,
    retention: float = DAY,
    retention_failed: float = 7 * DAY,
) -> Iterator[World]:
    """Make a world for the length of the block: calls of dagorama, of all threads, go to its broker.

    `workers` run the nodes; by default there is one, which takes every queue and tolerates every taint. `retention` and
    `retention_failed` are the seconds for which completed and failed instances are kept. Raises ValueError or TypeError
    for other arguments.
    """
    if not retention >= 0 or not retention_failed >= 0:
        raise ValueError(f"retention={retention!r}, retention_failed={retention_failed!r}: pass seconds from 0 up")
    if isinstance(workers, SimulatedWorker):
        raise TypeError(f"inline() takes a sequence of workers: pass [{workers!r}]")
    broker = InlineBroker(time.time(), RetentionPolicy(retention, retention_failed))
    driver, rules = Driver(broker), Rules()
    world = World(driver, rules)
    with ExitStack() as stack:
        stack.enter_context(fresh_key())
        stack.enter_context(constructed_again())
        try:
            stack.enter_context(using(InlineConnection(driver, world.clock)))
            for worker in workers:
                world.add_worker(worker)
            yield world
        except BaseException:
            driver.close()
            raise
        world.close()
