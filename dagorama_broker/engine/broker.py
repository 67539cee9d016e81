"""The loop: let the scheduler decide, commit, notify. Messages to workers and waiting clients wait for the commit."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf

from dagorama_broker.engine.ahead import Ahead
from dagorama_broker.engine.cancellation import Cancellation
from dagorama_broker.engine.clock import SYSTEM, Alarm, Clock, advance_clock
from dagorama_broker.engine.commits import CommitExecutor, Commits, notify
from dagorama_broker.engine.drafts import Drafts
from dagorama_broker.engine.functions import Functions
from dagorama_broker.engine.leadership import until_sure
from dagorama_broker.engine.loading import Loading
from dagorama_broker.engine.logs import Logs
from dagorama_broker.engine.looks import Looks
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.engine.node_changes import Feeds
from dagorama_broker.engine.payload_cache import RecentResults, is_final
from dagorama_broker.engine.payloads import Payloads
from dagorama_broker.engine.progress import ProgressReader
from dagorama_broker.engine.proofs import Proofs
from dagorama_broker.engine.recorder import Recorder, Traffic
from dagorama_broker.engine.reports import Reports
from dagorama_broker.engine.retention import Retention
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.engine.schedules import Schedules
from dagorama_broker.engine.series import Series
from dagorama_broker.engine.sessions import Sessions
from dagorama_broker.engine.stacks import Stacks
from dagorama_broker.engine.submissions import Submissions
from dagorama_broker.engine.traces import AttemptTraces
from dagorama_broker.engine.waiters import Waiters
from dagorama_broker.errors import Unavailable
from dagorama_broker.model.rows import Changes, RemovedRow
from dagorama_broker.scheduler import Effects, Granted, Scheduler, Worker
from dagorama_broker.store.protocol import Store

log = logging.getLogger("dagorama_broker")

#: Workers that are remembered to have been told to leave.
MOST_DRAINING = 10_000
#: Turns of the event loop in which messages to workers are written and sent, before a commit that may block it.
TURNS = 2


class Broker:
    """Holds the scheduler, the store and all that serves them, and runs the loop."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        cache_bytes: int = 256 << 20,
        keeping: RetentionPolicy | None = None,
        thread: CommitExecutor | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.scheduler, self.store, self._clock = scheduler, store, clock
        self.commits = commits = Commits(scheduler, store, thread, clock)
        in_store = commits.in_store
        self.payloads = Payloads(cache_bytes, partial(in_store, store.arguments), partial(in_store, store.values))
        self.recent = RecentResults(self.payloads.values)
        self.grants_ahead = True  #: see `Ahead`
        self._ahead = Ahead(scheduler, self.payloads)
        self.watching = Waiters()
        self.sessions = Sessions()
        self.proofs = Proofs(store.secret)
        self.lookups = Lookups(commits, self.payloads, keeping or RetentionPolicy())
        self.reports = Reports(scheduler)
        self.progress = ProgressReader(commits, self.lookups, self.reports)
        self.logs = Logs()
        self.stacks = Stacks()
        self.feeds = Feeds(commits)
        self.series = Series(scheduler, clock)
        self.loading = Loading(commits, self.lookups)
        self.drafts = Drafts(commits, self.lookups, self.loading)
        self.submissions = Submissions(commits, self.lookups, self.loading, self.drafts)
        self.functions = Functions(commits)
        self.retention = Retention(commits, self.lookups, self.loading, self.removed)
        self.cancellation = Cancellation(commits, self.lookups)
        self.schedules = Schedules(commits, self.submissions, self.cancellation)
        self.retry_lock = asyncio.Lock()  #: one retry is read and decided at a time
        self._draining: OrderedDict[bytes, None] = OrderedDict()  # IDs of workers that were told to leave
        self.traffic = Traffic()
        self.attempt_traces = AttemptTraces()
        self.recorder: Recorder | None = None  #: counts the steps for metrics, if there is one
        self.is_leaving = False  #: workers and waiters have been notified
        self._returns: set[asyncio.Event] = set()
        self._when_leaving: set[Callable[[], None]] = set()
        self.tick_at: float | None = None  #: when something is due by the scheduler; None: at the next change
        self._alarm = Alarm()

    # --- the loop -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`. Raises StoreError if a commit fails: the store has the truth, and a restart reads it."""
        commits = self.commits
        tasks = [asyncio.create_task(part.run()) for part in self._parts()]
        for task in tasks:
            task.add_done_callback(lambda _: commits.changed.set())
        try:
            while not commits.stopping or commits.changed.is_set():
                commits.changed.clear()
                await self._step()
                for task in tasks:
                    if task.done() and not commits.stopping:
                        task.result()
                if not commits.stopping:
                    wait = inf if self.tick_at is None else self.tick_at - self._clock.monotonic()
                    await self._alarm.wait(commits.changed, wait)
        finally:
            commits.stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._alarm.cancel()
            commits.close()

    def _parts(self) -> tuple[Retention, Functions, Looks, Schedules]:
        """Return what runs next to the loop."""
        return self.retention, self.functions, self.loading.looks, self.schedules

    async def _step(self) -> None:
        self.see_time()
        if self.recorder is not None:
            self.recorder.begin_step()
        self.tick_at = self.scheduler.tick(self._clock.monotonic())
        changes, effects = self.scheduler.drain()
        waiting, grants = self.commits.take_waiting(), effects.granted
        self.feeds.begin(effects)
        try:
            if changes:
                self.payloads.take_in(changes, self.scheduler.nodes, self._is_wanted(effects))
                self.commits.begin(changes)
                grants = await self._grant_ahead(changes, effects)
                await self._commit(changes)
            await until_sure(self.store, self.commits)
        except BaseException:
            notify(waiting, Unavailable("the broker stops, because its store could not be written"))
            raise
        self.feeds.take(changes, effects)
        self._tell(effects, grants)  # before the waiters: messages to workers take longer than answers
        notify(waiting, None)
        if self.recorder is not None:
            self.recorder.end_step(changes, effects, self.commits.thread.last_seconds)
        self.sessions.hang_up_on_lost(self.scheduler)
        self.functions.look()
        if effects.limits:
            self.functions.warn_of_limits(effects.limits)

    async def _grant_ahead(self, changes: Changes, effects: Effects) -> list[Granted]:
        """Grant what need not wait for this commit; return what must."""
        if not self.grants_ahead or not self.store.is_sure:
            return effects.granted
        granted, later = self._ahead.split(changes, effects)
        for _ in range(0 if self.sessions.grant(granted) else TURNS):
            await asyncio.sleep(0)
        return later

    async def _commit(self, changes: Changes) -> None:
        commits, thread = self.commits, self.commits.thread
        self.functions.note(changes)
        if thread.may_commit_outside(changes):
            thread.timed(self.store.commit, changes)
        else:
            await commits.in_store(thread.timed, self.store.commit, changes)
        commits.end()
        self._ahead.committed(changes)

    def stop(self) -> None:
        """End the loop after the commit of what has changed."""
        self.commits.stopping = True
        self.commits.changed.set()

    def see_time(self) -> float:
        """Set the scheduler's clock, before a verb; return the time."""
        return advance_clock(self.scheduler, self._clock)

    def memory_size(self) -> int:
        """Return the bytes that nodes, functions and envelopes take in memory, roughly."""
        return self.scheduler.memory_size() + self.payloads.arguments.size + self.payloads.values.size

    # --- notifying ------------------------------------------------------------------------------------

    def _is_wanted(self, effects: Effects) -> Callable[[int], bool]:
        wanted = {node.key for node in effects.ended if node.consumers or is_final(node)}
        return lambda key: key in wanted or key in self.watching

    def _tell(self, effects: Effects, grants: Sequence[Granted]) -> None:
        if effects.cancelled:
            self.logs.remember_cancelled(effects.ended)
        self.sessions.tell(effects, grants)
        self.watching.tell(effects.ended)
        if self._returns and effects.ended:
            self.returned()
        if self.schedules.waits and effects.ended:
            self.schedules.look()
        for node in effects.ended:
            if is_final(node):
                self._let_go(self.recent.add(node))
        self.payloads.let_go(effects, self._is_asked_for)

    # --- cached results -------------------------------------------------------------------------------

    def _is_asked_for(self, key: int) -> bool:
        return key in self.watching or key in self.recent

    def _let_go(self, keys: Iterable[int]) -> None:
        """Drop values that are no longer among the recent ones, unless a client waits for them."""
        for key in keys:
            if key not in self.watching:
                self.payloads.values.drop(key)

    def forget(self, instances: Collection[int]) -> None:
        """Drop cached results of these instances, by their keys."""
        self._let_go(self.recent.forget(instances))
        self.functions.removed()

    def removed(self, rows: Collection[RemovedRow]) -> None:
        """Drop what is cached of removed instances, and their logs."""
        self.forget({row.key for row in rows})
        self.logs.remove({row.id for row in rows})

    # --- events ---------------------------------------------------------------------------------------

    @contextmanager
    def hearing_returns(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set when a worker returns nodes that it cannot run, and when nodes end."""
        event = asyncio.Event()
        self._returns.add(event)
        try:
            yield event
        finally:
            self._returns.discard(event)

    def returned(self) -> None:
        """Record that a worker has returned nodes, or that nodes have ended."""
        for event in self._returns:
            event.set()

    def drain(self, worker: Worker) -> None:
        """Grant a worker nothing more, and tell it to leave, again if it loses its connection before it has left."""
        self._draining[worker.info.id] = None
        if len(self._draining) > MOST_DRAINING:
            self._draining.popitem(last=False)
        self.scheduler.leave(worker)
        if (session := self.sessions.awake(worker)) is not None:
            session.news.drain = True

    def is_drained(self, worker: bytes) -> bool:
        """Return whether a worker that connects was told to leave before."""
        return worker in self._draining

    def say_leaving(self) -> None:
        """Notify workers and waiting clients that the broker leaves; they reconnect when it is back."""
        self.is_leaving = True
        for session in self.sessions.values():
            session.news.draining = True
            session.wake()
        self.watching.close()
        self.progress.close()
        for leave in self._when_leaving:
            leave()

    @contextmanager
    def until_leaving(self, leave: Callable[[], None]) -> Iterator[None]:
        """Call `leave` if the broker leaves within the context."""
        self._when_leaving.add(leave)
        try:
            yield
        finally:
            self._when_leaving.discard(leave)
