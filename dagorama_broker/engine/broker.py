"""One writer: load, decide, commit, tell.

Calls change the heart at once and then wait for the commit that holds their change; whatever gathers while a commit
runs goes into the next. What workers and waiters are told waits for the commit too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from dagorama_broker.engine.commits import StoreThread
from dagorama_broker.engine.deduplication import Unwritten, left_to_make
from dagorama_broker.engine.drafts import is_many, submit_many
from dagorama_broker.engine.functions import Functions
from dagorama_broker.engine.loading import Reach, reach, refuse_other_world, within_reach
from dagorama_broker.engine.payload_cache import Payloads, Recent, is_final
from dagorama_broker.engine.proofs import Proofs
from dagorama_broker.engine.retention import Holds, Retention
from dagorama_broker.engine.retention_policy import Keeping, not_known
from dagorama_broker.engine.waiters import Watching
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import NotAllowedNow, NotKnown, NotServing
from dagorama_broker.model.domain import ENDED
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.model.rows import Changes, OutcomeRow
from dagorama_broker.scheduler import Effects, NewRun, Node, Scheduler, Worker
from dagorama_broker.scheduler.restore import ended_nodes
from dagorama_broker.store.protocol import Store

log = logging.getLogger("dagorama_broker")

T = TypeVar("T")
#: Called when something is durable, with None, or with what keeps the broker from that.
Waiter = Callable[[NotServing | None], None]

CALL_AGAIN = "the broker is leaving; call again when it is back"

#: Seconds after which the loop looks at the time even when nothing asks for it: a stopped clock is noticed by this.
LONGEST_SLEEP = 5.0
#: Seconds between two looks for streams of workers that have been given up.
LOOK = 1.0
#: Bytes, roughly, of a live node beside its envelopes, of each source or promise that it waits for, of an instance with
#: its run, and of the lane of a concurrency key.
NODE_BYTES, EDGE_BYTES, INSTANCE_BYTES, KEY_BYTES = 600, 24, 700, 1_300


class Broker:
    """The scheduler, the store and those who are told, around one loop."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        cache_bytes: int = 256 << 20,
        keeping: Keeping | None = None,
        thread: StoreThread | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.store = store
        self.watching = Watching()
        self.payloads = Payloads(cache_bytes, self._arguments, self._values)
        self.recent = Recent(self.payloads.values)
        self.sessions: dict[Worker, Session] = {}
        self._returns: set[asyncio.Event] = set()
        self._when_leaving: set[Callable[[], None]] = set()
        self.unwritten = Unwritten(scheduler.graph)
        self.drafting = asyncio.Lock()  #: one large submission is made at a time
        self._tasks: set[asyncio.Task[None]] = set()  # that go on whoever asked for them
        self.retry_lock = asyncio.Lock()  #: one retry is read and decided at a time
        self.keeping = keeping or Keeping()
        self.proofs = Proofs(store.secret)
        self.holds = Holds()
        self.loads: set[Reach] = set()  #: under way
        self.functions = Functions(self)
        self.in_flight = Changes()  #: that are being committed
        self.commits = 0
        self.is_leaving = False  #: workers and waiters have been told
        self._thread = thread or StoreThread()
        self._changed = asyncio.Event()
        self._waiting: list[Waiter] = []  # for the next commit
        self._stopping = False
        self._look_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None  # when the loop looks at the time

    # --- the loop -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`. Raises StoreError when a commit fails: the store has the truth, a restart reads it."""
        removing = asyncio.create_task(Retention(self).run())
        removing.add_done_callback(lambda _: self._changed.set())
        dropping = asyncio.create_task(self.functions.run())
        dropping.add_done_callback(lambda _: self._changed.set())
        try:
            while not self._stopping or self._changed.is_set():
                self._changed.clear()
                await self._step()
                for task in (removing, dropping):
                    if task.done() and not self._stopping:
                        task.result()
                if not self._stopping:
                    await self._sleep()
        finally:
            self._stopping = True
            removing.cancel()
            dropping.cancel()
            await asyncio.gather(removing, dropping, return_exceptions=True)
            if self._alarm is not None:
                self._alarm.cancel()
            _tell_each(self._waiting, NotServing("the broker is leaving"))
            self._thread.shutdown()

    @contextmanager
    def hearing_returns(self) -> Iterator[asyncio.Event]:
        """The event is set when a worker gives nodes back because it cannot run them, and when nodes end."""
        event = asyncio.Event()
        self._returns.add(event)
        try:
            yield event
        finally:
            self._returns.discard(event)

    def returned(self) -> None:
        """A worker has given nodes back, or nodes have ended."""
        for event in self._returns:
            event.set()

    def say_leaving(self) -> None:
        """Tell workers and waiters that the broker leaves; they reconnect when it is back."""
        self.is_leaving = True
        for session in self.sessions.values():
            session.news.draining = True
            session.wake()
        self.watching.close()
        for leave in self._when_leaving:
            leave()

    @contextmanager
    def until_leaving(self, leave: Callable[[], None]) -> Iterator[None]:
        """Around something that is to be told when the broker leaves."""
        self._when_leaving.add(leave)
        try:
            yield
        finally:
            self._when_leaving.discard(leave)

    def stop(self) -> None:
        self._stopping = True
        self._changed.set()

    async def _step(self) -> None:
        await asyncio.sleep(0)  # let calls that are ready to run join this batch
        self.see_time()
        self._tick_at = self.scheduler.tick(time.monotonic())
        self.unwritten.about_to_drain()
        changes, effects = self.scheduler.drain()
        waiting, self._waiting = self._waiting, []
        if changes:
            self.payloads.take_in(changes, self.scheduler.graph.nodes, self._is_wanted(effects))
            await self._commit(changes, waiting)
        self._tell(effects)  # first: workers have a longer way to go than answers
        _tell_each(waiting, None)
        self._hang_up_on_lost()
        self.functions.look()

    async def _commit(self, changes: Changes, waiting: list[Waiter]) -> None:
        self.in_flight = changes
        self.functions.note(changes)
        try:
            if self._thread.may_commit_outside(changes):
                self._thread.timed(self.store.commit, changes)
            else:
                await self._in_thread(self._thread.timed, self.store.commit, changes)
        except BaseException:
            _tell_each(waiting, NotServing("the broker stops: its store could not be written"))
            raise
        self.in_flight = Changes()
        self.unwritten.written()
        self.commits += 1

    async def _sleep(self) -> None:
        """Until something has changed, or it is time to look."""
        if self._stopping:
            return
        wait = LONGEST_SLEEP
        if self._tick_at is not None:
            wait = min(wait, max(0.0, self._tick_at - time.monotonic()))
        loop = asyncio.get_running_loop()
        when = loop.time() + wait
        if self._alarm is None or self._alarm.when() > when:  # one that comes too early does no harm
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(when, self._ring)
        await self._changed.wait()

    def _ring(self) -> None:
        self._alarm = None
        self._changed.set()

    def _is_wanted(self, effects: Effects) -> Callable[[int], bool]:
        wanted = {node.key for node in effects.ended if node.readers or is_final(node)}
        return lambda key: key in wanted or key in self.watching

    def _tell(self, effects: Effects) -> None:
        for granted in effects.granted:
            if (session := self._session_of(granted.slot.worker)) is not None:
                session.news.granted.append(granted)
        for taken in effects.take_back:
            if (session := self._session_of(taken.slot.worker)) is not None:
                session.news.take_back.append(taken)
        for worker, attempt in effects.refused:
            if (session := self._session_of(worker)) is not None:
                session.news.refused.append(attempt)
        for worker, attempt in effects.cancelled:
            if (session := self._session_of(worker)) is not None:
                session.news.cancelled.append(attempt)
        for worker in effects.done:
            if (session := self._session_of(worker)) is not None:
                session.news.done = True
                session.news.left = effects.left[worker]
        self.watching.tell(effects.ended)
        if self._returns and effects.ended:
            self.returned()
        for node in effects.ended:
            if is_final(node):
                self._let_go(self.recent.add(node))
        self.payloads.let_go(effects, self._is_asked_for)

    def _is_asked_for(self, key: int) -> bool:
        return key in self.watching or key in self.recent

    def _let_go(self, keys: Iterable[int]) -> None:
        """Values that are among the recent ones no more."""
        for key in keys:
            if key not in self.watching:
                self.payloads.values.drop(key)

    def forget(self, instances: Collection[int]) -> None:
        """Nothing of these instances, by their keys, is answered from memory any more."""
        self._let_go(self.recent.forget(instances))
        self.functions.removed()

    def _hang_up_on_lost(self) -> None:
        """Streams of workers whose lease ran out: a client that neither speaks nor reads would keep one for ever."""
        if self.scheduler.graph.now < self._look_at:
            return
        self._look_at = self.scheduler.graph.now + LOOK
        for worker, session in self.sessions.items():
            if self.scheduler.dispatch.workers.get(worker.presence.id) is not worker and not session.over:
                log.info("worker %r was lost: it was silent for longer than its lease", worker.presence.name)
                session.end(NotAllowedNow("this worker was silent for longer than its lease: connect again"))

    def _session_of(self, worker: Worker) -> Session | None:
        """The session to tell something, which it will wake for; None: the worker is gone."""
        session = self.sessions.get(worker)
        if session is not None:
            session.wake()
        return session

    def held(self) -> int:
        """Bytes that all takes which is in memory now, roughly."""
        graph, payloads = self.scheduler.graph, self.payloads
        return (
            len(graph.nodes) * NODE_BYTES + graph.edges * EDGE_BYTES + len(graph.instances) * INSTANCE_BYTES
            + len(graph.keyed) * KEY_BYTES + graph.functions_size + graph.failures_size
            + self.scheduler.staged.cost + payloads.arguments.size + payloads.values.size
        )  # fmt: skip

    # --- for those who call ---------------------------------------------------------------------------

    def see_time(self) -> float:
        """Tell the heart what time it is, before a verb; returns it."""
        now = time.monotonic()
        self.scheduler.at(now, time.time() - now)
        return now

    def touch(self) -> None:
        """Say that the heart was changed. Raises NotServing while the broker leaves."""
        if self._stopping:
            raise NotServing(CALL_AGAIN)
        self._changed.set()

    def when_durable(self, waiter: Waiter) -> None:
        """Have it called when what the heart holds now is durable and told.

        It gets None, or what keeps the broker from it. To be said right after `touch`.
        """
        self._waiting.append(waiter)

    async def durable(self) -> None:
        """Wait until what the heart holds now is durable, and told. Raises NotServing."""
        await self.next_commit()

    def next_commit(self) -> asyncio.Future[None]:
        """Return what is done when what the heart holds now is durable, and told. Raises NotServing."""
        self.touch()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: NotServing | None) -> None:
            if future.done():
                return  # whoever called has hung up
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.when_durable(done)
        future.add_done_callback(_look_at)  # which may be the only one who does
        return future

    async def next_turn(self) -> None:
        """Let other calls have their turn. Raises NotServing while the broker leaves."""
        await asyncio.sleep(0)
        if self._stopping:
            raise NotServing(CALL_AGAIN)

    async def settled(self) -> None:
        """Wait until nothing is put off: all that has ended was told to what waits for it. Raises NotServing."""
        while self.scheduler.graph.starting or self.scheduler.graph.untold:
            await self.durable()

    def go_on_with(self, work: Coroutine[None, None, None]) -> None:
        """Have it done whatever becomes of the call that is being answered."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def submit(self, runs: Sequence[NewRun]) -> None:
        """Make nodes and instances, once. Raises a BrokerRefusal, and then nothing has changed."""
        if is_many(self, sum([run.weight for run in runs])):
            await submit_many(self, runs)
            return
        found = await reach(self, runs)
        # From here to the heart nothing is awaited: what was found is still so.
        for run in runs:
            if run.instance in found.unknown and run.instance not in self.scheduler.graph.instances:
                await self.durable()  # its removal may be under way
                raise self.not_known(run.instance)
        self._make(runs, found)
        await self.durable()

    def submit_at_once(self, runs: Sequence[NewRun], waiter: Waiter) -> bool:
        """The same where all that is named is in memory, with nothing awaited; False where it is not."""
        if is_many(self, sum([run.weight for run in runs])) or (found := within_reach(self, runs)) is None:
            return False
        self._make(runs, found)
        self.touch()
        self.when_durable(waiter)
        return True

    def _make(self, runs: Sequence[NewRun], found: Reach) -> None:
        graph = self.scheduler.graph
        refuse_other_world(runs, found)
        runs = left_to_make(self, runs, found)
        for run in runs:
            self.refuse_unkept(run.large)
        for id, stored in found.instances.items():
            graph.recall(stored.row.key, id, stored.failed)
        self.see_time()
        try:
            self.scheduler.submit(runs, found.nodes)
        finally:
            graph.forget_idle(found.instances)

    def refuse_unkept(self, large: Iterable[bytes]) -> None:
        """Raise NotKnown if one of these large values is not here."""
        for sha256 in large:
            if not self.store.has_large(sha256):
                raise NotKnown(
                    f"large value {sha256.hex()} is not here: it was not sent with PutValue before, or no node has"
                    f" named it for {self.keeping.grace:g} s; put() it again"
                )

    def not_known(self, instance: bytes) -> NotKnown:
        """What is said of an instance that is not in the store, or not any more."""
        return not_known(instance, self.store.removed(instance), self.keeping)

    def has_instance(self, id: bytes) -> bool:
        """Whether this id was ever used for an instance."""
        return id in self.scheduler.graph.instances or id in self.unwritten or self.store.has_instance(id)

    async def stored_instance(self, id: bytes) -> StoredInstance:
        """An instance as it is on record, with all that has happened until now. Raises NotKnown."""
        return (await self.stored_instances([id]))[id]

    async def stored_instances(self, ids: Collection[bytes]) -> dict[bytes, StoredInstance]:
        """The same for many, by id."""
        await self.durable()
        store = self.store
        found = await self._in_thread(lambda: {id: stored for id in ids if (stored := store.instance(id)) is not None})
        for id in ids:
            if id not in found:
                raise self.not_known(id)
        return found

    async def find_ended(self, ids: Sequence[bytes]) -> dict[bytes, Node]:
        """Nodes that have ended, by id, from the store; those that are unknown or unfinished are left out."""
        if not ids:
            return {}
        found = await self._in_thread(self.store.find, ids)
        rows = {row.key: id for id, row in found.items() if row.ended is not None}
        ended = await self._in_thread(self.store.ended, list(rows))
        nodes = ended_nodes(self.scheduler.graph, ended)
        # What was removed between the two looks is unknown, as it would be to a third.
        return {id: nodes[key] for key, id in rows.items() if key in nodes and nodes[key].state in ENDED}

    async def outcome(self, key: int) -> OutcomeRow | None:
        return await self._in_thread(self.store.outcome, key)

    async def values_of(self, nodes: Sequence[Node]) -> dict[bytes, bytes]:
        """The envelopes of completed nodes, by node id."""
        values = await self.payloads.values.get(node.key for node in nodes)
        ids = await self.ids_of(nodes)
        return {ids[key]: value for key, value in values.items()}

    async def ids_of(self, nodes: Sequence[Node]) -> dict[int, bytes]:
        """The 16-byte ids of nodes, by key."""
        ids = {node.key: node.run.id_of(node.key) for node in nodes if node.run is not None}
        if len(ids) < len(nodes):
            ids |= await self._in_thread(self.store.ids, [node.key for node in nodes if node.run is None])
        return ids

    async def in_store(self, call: Callable[..., T], *arguments: object) -> T:
        """Make one of the store's calls in the store's thread."""
        return await self._in_thread(call, *arguments)

    # --- the store's thread ----------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        return await self._in_thread(self.store.arguments, keys)

    async def _values(self, keys: Sequence[int]) -> dict[int, bytes]:
        return await self._in_thread(self.store.values, keys)


def _look_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _tell_each(waiting: list[Waiter], error: NotServing | None) -> None:
    for waiter in waiting:
        waiter(error)
