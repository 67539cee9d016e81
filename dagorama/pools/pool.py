"""A pool: asks the broker how many slots are needed, and lets an engine start workers, and drain them if it may.

The broker owns the work, and workers leave by themselves. So a pool may die at any time, and the next one with its name
goes on: it finds the members at the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from types import TracebackType

from dagorama.api import broker_pb2
from dagorama.client.connection import Connection, connection
from dagorama.client.demand import BrokerAway, Demand
from dagorama.errors import BrokerOverloaded, BrokerUnavailable
from dagorama.pools.decision import Decision, Member, decide
from dagorama.pools.engine import Engine, EngineRefused, Phase
from dagorama.pools.following import LatestDemand
from dagorama.pools.memory import Idleness, Starts
from dagorama.pools.notices import Notices, log
from dagorama.pools.options import PoolOptions
from dagorama.pools.worker_spec import LAST_REPORTS_S, WorkerSpec
from dagorama.values.signing import keyring

#: Seconds between two looks at the engine: at least, while workers are missing, and without news from the broker.
PACE, SOON, LOOK = 1.0, 2.0, 10.0


class Pool:
    """The workers that one engine runs for one pool. Use `run`, or a `with` block, at whose end the workers leave."""

    def __init__(
        self,
        engine: Engine,
        options: PoolOptions,
        worker: WorkerSpec | None = None,
        say: Callable[[str, bool], None] = log,
    ) -> None:
        """Connect to nothing yet. `say` gets sentences for people, and whether they are warnings."""
        self._engine = engine
        self._options = options
        self._worker = worker or options.worker()
        self._starts = Starts(self._worker.idle)
        self._idleness = Idleness(self._worker)
        self._notices = Notices(options, say)
        self._misses = False  #: fewer workers than wanted were started at the last turn
        self._stopped = threading.Event()
        self._latest: LatestDemand | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the pool at its size until `stop` is called; its workers then stay.

        Raises BrokerError if the broker refuses the question, for example because the token does not allow it.
        """
        broker = connection()
        self._check_permission(broker)
        with LatestDemand(broker, self._request()) as latest:
            self._latest = latest
            while not self._stopped.is_set():
                latest.wait(SOON if self._misses else LOOK)
                if not self._stopped.is_set():
                    self._turn(broker, latest.now)
                self._stopped.wait(PACE)

    def stop(self) -> None:
        """Let `run` return; called in another thread, and not in a handler of a signal."""
        self._stopped.set()
        if self._latest is not None:
            self._latest.wake()

    def _check_permission(self, broker: Connection) -> None:
        """Raise AccessDenied now if the pool may not see whether workers are idle, and not when it needs to."""
        if self._options.drain_idle:
            with suppress(BrokerUnavailable, BrokerOverloaded):
                broker.get_status()

    def _request(self) -> broker_pb2.DemandRequest:
        options = self._options
        return broker_pb2.DemandRequest(
            include_queues=options.include_queues, exclude_queues=options.exclude_queues,
            tolerations=options.tolerations, key_ids=keyring().ids, horizon=options.horizon, share=options.share,
        )  # fmt: skip

    def _turn(self, broker: Connection, demand: Demand | BrokerAway | None) -> None:
        if demand is None:
            return
        if isinstance(demand, BrokerAway):
            self._notices.broker_away(demand.why)
            return
        self._notices.demand(demand)
        try:
            alive = self._engine.alive()
        except EngineRefused as error:
            self._notices.engine_silent(error)
            return
        self._notices.engine_answers()
        self._note_early_ends(alive)
        decision = decide(demand, self._members(broker, alive), self._options.bounds)
        self._notices.members(demand, alive, decision)
        self._carry_out(decision)

    def _note_early_ends(self, alive: Mapping[str, Phase]) -> None:
        now = monotonic()
        if early := self._starts.ended_early(alive, now):
            self._notices.ended_early(early, self._starts.failed(now))

    def _members(self, broker: Connection, alive: Mapping[str, Phase]) -> list[Member]:
        """Return the members, with their idle times if idle ones may be drained."""
        workers = None
        if self._options.drain_idle and len(alive) > self._options.min:
            try:
                workers = list(broker.get_status().workers)
            except (BrokerUnavailable, BrokerOverloaded) as error:
                self._notices.broker_away(str(error))
        return self._idleness.members(alive, workers, monotonic())

    def _carry_out(self, decision: Decision) -> None:
        started = 0
        if decision.start and not self._starts.wait(monotonic()):
            started = self._start(decision)
            self._notices.missing(decision.start - started)
        self._misses = started < decision.start
        if decision.drain:
            self._notices.drains(decision.drain)
            self._drain(decision.drain)

    def _start(self, decision: Decision) -> int:
        """Start workers, and return how many the engine was asked for."""
        total = 0
        asked = ((decision.staying, replace(self._worker, idle=None)), (decision.leaving, self._worker))
        try:
            for count, worker in asked:
                if count:
                    ids = self._engine.start(count, worker)
                    self._starts.started(ids, monotonic())
                    self._notices.started(ids)
                    total += len(ids)
        except EngineRefused as error:
            self._notices.start_refused(decision.start, error, self._starts.failed(monotonic()))
        return total

    def _drain(self, ids: tuple[str, ...]) -> None:
        self._starts.forget(ids)
        try:
            self._engine.drain(ids)
        except EngineRefused as error:
            self._notices.engine_silent(error)

    # --- the whole pool ---------------------------------------------------------------------------------

    def drain(self, wait: bool = True) -> None:
        """Tell all workers to leave, and wait for them, for their grace period and some seconds more.

        Raises EngineRefused.
        """
        self._engine.drain(tuple(self._engine.alive()))
        until = monotonic() + self._worker.grace + LAST_REPORTS_S
        pause = threading.Event()
        while wait and self._engine.alive() and monotonic() < until:
            pause.wait(PACE / 2)

    def __enter__(self) -> Pool:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self._run_here, name="dagorama-pool", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and let the workers leave; raise what has ended the pool before, unless the block has raised."""
        self.stop()
        try:
            if self._thread is not None:
                self._thread.join()
            self.drain()
        finally:
            self._release()
        if self._error is not None and error is None:
            raise self._error

    def _release(self) -> None:
        """Let go of what the engine needs until the end of the block: nothing, unless a subclass says otherwise."""

    def _run_here(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._error = error
            self._notices.broke(error)
