"""A worker without processes of its own: nodes run in the calling process, one session slot, for tests and scripts."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, monotonic_ns
from types import FrameType

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama.client.large_values import BrokerValues, LargeValues
from dagorama.client.reconnect import PATIENCE
from dagorama.context import expect_threads
from dagorama.logging import get_logger
from dagorama.settings import WorkerOptions, broker_wait
from dagorama.values.signing import keyring
from dagorama.worker.child.async_runner import leave_loop
from dagorama.worker.child.call import Call
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.process_state import note_changes
from dagorama.worker.child.run_loop import Engine
from dagorama.worker.child.threads import follow_threads
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.in_process.stream import ThreadedStream
from dagorama.worker.supervisor.notices import Notices, left_behind
from dagorama.worker.supervisor.session import Held, Session, hello

SETTLING = 10.0  #: seconds for the last reports to be acknowledged
LOOK = 0.5  #: seconds between looks at how long the broker has been gone


class _Ledger:
    """What was granted and has not been answered for; Claims for the engine, in this process's own memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[int, int] = {}  # by attempt
        self._attempts: dict[int, int] = {}  # of those not started, by ordinal
        self._running: dict[int, tuple[int, int]] = {}  # attempt and ordinal, by entry
        self._cancelled: set[int] = set()  # ordinals of those that run
        self._tell: Callable[[], object] = lambda: None  # somebody watches for that
        self._given = 0
        self._closed = False

    def give(self, grant: pb.Grant) -> None:
        with self._lock:
            self._nodes.update(zip(grant.attempt, grant.node, strict=True))
            self._attempts.update(enumerate(grant.attempt, self._given))
            self._given += len(grant.attempt)

    def start(self, ordinal: int, entry: int, now: int) -> bool:
        with self._lock:
            attempt = None if self._closed else self._attempts.pop(ordinal, None)
            if attempt is None:
                return False
            self._end(entry)
            self._running[entry] = attempt, ordinal
            return True

    def finish(self, entry: int) -> None:
        """Whatever runs here is answered for."""
        with self._lock:
            self._end(entry)

    def _end(self, entry: int) -> None:
        _, ordinal = self._running.pop(entry, (0, -1))
        self._cancelled.discard(ordinal)

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        return ordinal in self._cancelled

    def watch(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nothing runs on it
                loop.call_soon_threadsafe(look)

        self._tell = tell

    def cancel(self, attempts: Iterable[int]) -> None:
        """The broker has ended them: what has not started never does, what runs is told."""
        self.take_back(attempts)
        held = self.answered(attempts)
        with self._lock:
            self._cancelled.update(ordinal for attempt, ordinal in self._running.values() if attempt in held.attempts)
        self._tell()

    def close(self) -> None:
        """Nothing starts any more."""
        self._closed = True

    def unstarted(self) -> pb.Return:
        return self.take_back(list(self._attempts.values()))

    def take_back(self, attempts: Iterable[int]) -> pb.Return:
        with self._lock:
            ordinals = {attempt: ordinal for ordinal, attempt in self._attempts.items()}
            taken = [attempt for attempt in attempts if attempt in ordinals]
            for attempt in taken:
                del self._attempts[ordinals[attempt]]
        held = self.answered(taken)
        return pb.Return(node=held.nodes, attempt=held.attempts)

    def answered(self, attempts: Iterable[int]) -> Held:
        with self._lock:
            known = [attempt for attempt in attempts if attempt in self._nodes]
            return Held(0, [self._nodes.pop(attempt) for attempt in known], known)

    def rest(self) -> pb.Return:
        """All that is left, as interrupted."""
        held = self.answered(list(self._nodes))
        return pb.Return(node=held.nodes, attempt=held.attempts, reason=pb.INTERRUPTED)

    @property
    def held(self) -> list[Held]:
        with self._lock:
            return [Held(0, list(self._nodes.values()), list(self._nodes))]


class _Interruption:
    """Tells Ctrl-C, which ends the worker, from a KeyboardInterrupt of the user's own, which fails a node."""

    def __init__(self) -> None:
        self.happened = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Where Python itself would answer Ctrl-C. Elsewhere nothing is changed."""
        with suppress(ValueError):  # signals are the main thread's
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            with suppress(ValueError):
                if signal.getsignal(signal.SIGINT) == self._note:
                    signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        signal.default_int_handler(number, frame)


class _LocalExecutor(Executor):
    """Remembers the first exception that is to be raised where the worker was called; then nothing more starts."""

    def __init__(
        self, outbox: Outbox, large: LargeValues, raise_failures: bool, interruption: _Interruption, ledger: _Ledger
    ) -> None:
        super().__init__(outbox, large)
        self._raise_failures = raise_failures
        self._interruption = interruption
        self._ledger = ledger
        self.raised: BaseException | None = None

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        interrupted = self._interruption.happened and isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        if (interrupted or self._raise_failures) and self.raised is None:
            self.raised = error
            self._ledger.close()
        if not interrupted:
            return super()._ended_badly(call, error, started)
        self.outbox.returned(call.node, call.attempt, pb.INTERRUPTED, "")
        return monotonic_ns()


class LocalWorker:
    """Run it once, by `run` or `run_async`. Both raise BrokerError, and what a node raised where that is wanted."""

    def __init__(self, options: WorkerOptions, *, stay: bool, raise_failures: bool) -> None:
        link = connection()
        self._stay = stay
        self._ledger = _Ledger()
        self._interruption = _Interruption()
        self._session = Session(hello(options, keyring().ids, 1, pb.STOPPED if stay else pb.IDLE))
        self._stream = ThreadedStream(link, self._session, lambda: self._ledger.held, self._on_message)
        self._outbox = Outbox(self._send)
        large = BrokerValues(link)
        self._executor = _LocalExecutor(self._outbox, large, raise_failures, self._interruption, self._ledger)
        self._pieces: list[bytes] = []
        self._bodies: list[bytes] = []  # granted and not looked at; with the session, its stream's
        self._connected = False
        self._notices = Notices()
        self._left: list[pb.Unservable] = []  # what no connected worker may run, when nothing else was left

    # --- in the calling thread ------------------------------------------------------------------------

    def run(self) -> None:
        _prepare()
        engine = Engine(self._executor, self._ledger)
        with self._interruption.watched(), self._living(engine):
            while self._wait(engine):
                for body in self._take_bodies():
                    engine.add(self._executor.prepare(body))
                engine.work_off()

    async def run_async(self) -> None:
        _prepare()
        engine = Engine(self._executor, self._ledger, asyncio.get_running_loop())
        with self._living(engine):
            try:
                while await asyncio.to_thread(self._wait, engine):
                    for body in self._take_bodies():
                        await self._work_off(engine, self._executor.prepare(body))
            except asyncio.CancelledError:
                self._interruption.happened = True
                for task in engine.lane.tasks:
                    task.cancel()
                await asyncio.gather(*engine.lane.tasks)
                raise

    async def _work_off(self, engine: Engine, calls: Sequence[Call]) -> None:
        for call in calls:
            if engine.lane.full:
                await asyncio.to_thread(engine.lane.wait_for_room)
            engine.add([call])
            engine.work_off()
            engine.watch()
            await asyncio.sleep(0)

    @contextmanager
    def _living(self, engine: Engine) -> Iterator[None]:
        """From the first word to the last acknowledgement, whatever ends it; then raises what a node raised."""
        self._stream.start()
        try:
            yield
        finally:
            self._leave()
            engine.close()
        if self._executor.raised is not None:
            raise self._executor.raised

    def _leave(self) -> None:
        if self._executor.forked:
            leave_loop()  # the caller's loop has gone on in a fork, before it could be ended
        self._ledger.close()
        self._outbox.flush()
        unstarted, rest = self._ledger.unstarted(), self._ledger.rest()

        def say(session: Session) -> None:
            session.drain()
            for returned in (unstarted, rest):
                if returned.attempt:
                    session.give_back(0, returned)

        self._stream.say(say)
        self._stream.wait_for(lambda session: session.settled, SETTLING if self._stream.lost is None else 0)
        self._stream.close()
        for sentence in left_behind(self._left):
            get_logger().warning("%s", sentence)

    def _wait(self, engine: Engine) -> bool:
        """For nodes; False when it is time to leave. Raises BrokerError."""
        engine.flush()
        while not self._stream.wait_for(lambda _: bool(self._bodies) or self._is_over(engine), LOOK):
            self._check_patience()
        if self._stream.refusal is not None:
            raise self._stream.refusal
        return not self._is_over(engine)

    def _is_over(self, engine: Engine) -> bool:
        if self._executor.raised is not None:
            return not engine.lane.busy
        return self._session.done or self._stream.closing or self._stream.refusal is not None

    def _check_patience(self) -> None:
        """A worker that is to stay waits for its broker for ever."""
        patience = broker_wait() if self._connected else PATIENCE
        lost = self._stream.lost
        if lost is not None and not self._stay and monotonic() - self._stream.lost_since >= patience:
            raise lost

    def _take_bodies(self) -> list[bytes]:
        bodies: list[bytes] = []

        def take(_: Session) -> None:
            bodies.extend(self._bodies)
            self._bodies.clear()

        self._stream.say(take)
        return bodies

    # --- in any thread --------------------------------------------------------------------------------

    def _send(self, kind: Kind, outcome: Outcome) -> None:
        held = self._ledger.answered(outcome.attempts)
        if kind == Kind.RESULTS:
            self._stream.say(lambda session: session.report(held, outcome.body))
        else:
            returned = pb.Return.FromString(outcome.body)
            self._notices.gave_back(returned)
            self._stream.say(lambda session: session.give_back(0, returned))

    def _on_message(self, message: pb.BrokerMessage) -> None:
        if message.HasField("welcome"):
            self._connected = True
            self._executor.large_from = message.welcome.large_from or self._executor.large_from
        for grant in message.grants:
            self._ledger.give(grant)
            self._pieces.append(grant.body)
            if grant.last:
                self._bodies.append(b"".join(self._pieces))
                self._pieces.clear()
        for wanted in message.take_back:
            if (returned := self._ledger.take_back(wanted.attempt)).attempt:
                self._session.give_back(0, returned)
        if message.cancel:
            self._ledger.cancel(message.cancel)
        self._left.extend(message.left)
        self._ledger.take_back(message.refused)
        self._ledger.answered(message.refused)


def _prepare() -> None:
    """Have threads, signals and timers of a node told from those of the caller, as in a child."""
    expect_threads()
    follow_threads()
    note_changes()
