"""A worker that runs nodes in the calling process, with one slot, for tests and scripts."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, monotonic_ns
from types import FrameType

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama.client.large_values import BrokerValues, LargeValues
from dagorama.client.reconnect import PATIENCE
from dagorama.context import expect_threads
from dagorama.logging import get_logger
from dagorama.settings import WorkerOptions, broker_wait, captures_logs
from dagorama.settings.values import values_patience
from dagorama.values.signing import keyring
from dagorama.worker.child import capture
from dagorama.worker.child.async_runner import leave_loop
from dagorama.worker.child.call import Call
from dagorama.worker.child.live_logs import LiveLogs
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.process_state import note_changes
from dagorama.worker.child.run_loop import RunLoop
from dagorama.worker.child.threads import follow_threads
from dagorama.worker.child.traced import TracedExecutor
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.in_process.claim_table import ClaimTable
from dagorama.worker.in_process.stream import ThreadedStream
from dagorama.worker.supervisor.notices import Notices, left_behind
from dagorama.worker.supervisor.session import Session, hello

ACKNOWLEDGE_TIMEOUT_S = 10.0  #: time for the broker to acknowledge the last reports
STACK_NOTE = "the worker runs in the process of a program, whose other threads are shown too"
LOSS_CHECK_INTERVAL_S = 0.5  #: how often the time without a broker is checked


class _CtrlC:
    """Distinguishes Ctrl-C, which ends the worker, from a KeyboardInterrupt raised by user code, which fails a node."""

    def __init__(self) -> None:
        self.happened = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note Ctrl-C if Python itself would handle it. With another handler, or in another thread, change nothing."""
        with suppress(ValueError):  # raised outside of the main thread
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


class _LocalExecutor(TracedExecutor):
    """An executor that keeps the first exception to raise in the caller of the worker, and starts no node after it."""

    def __init__(
        self, outbox: Outbox, large: LargeValues, raise_failures: bool, interruption: _CtrlC, claims: ClaimTable
    ) -> None:
        self.logs = LiveLogs(outbox)
        super().__init__(outbox, large, self.logs.open)
        self._raise_failures = raise_failures
        self._interruption = interruption
        self._claims = claims
        self.raised: BaseException | None = None

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        interrupted = self._interruption.happened and isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        if (interrupted or self._raise_failures) and self.raised is None:
            self.raised = error
            self._claims.close()
        if not interrupted:
            return super()._ended_badly(call, error, started)
        self.outbox.returned(call.node, call.attempt, pb.INTERRUPTED, "")
        return monotonic_ns()


class LocalWorker:
    """A worker for one call of `run` or `run_async`.

    Both raise BrokerError, and with `raise_failures` the exception of a failed node. With `stay` the worker does not
    exit when there are no more nodes.
    """

    def __init__(self, options: WorkerOptions, *, stay: bool, raise_failures: bool) -> None:
        link = connection()
        self._stay = stay
        self._claims = ClaimTable()
        self._interruption = _CtrlC()
        self._session = Session(hello(options, keyring().ids, 1, pb.STOPPED if stay else pb.IDLE))
        self._stream = ThreadedStream(link, self._session, lambda: self._claims.held, self._on_message)
        self._outbox = Outbox(self._send)
        large = BrokerValues(link, values_patience)
        self._executor = _LocalExecutor(self._outbox, large, raise_failures, self._interruption, self._claims)
        self._pieces: list[bytes] = []
        self._bodies: list[bytes] = []  # of grants that were not prepared; guarded by the stream, as the session
        self._connected = False
        self._notices = Notices()
        self._left: list[pb.Unschedulable] = []  # nodes left over that no connected worker can run

    # --- in the calling thread ------------------------------------------------------------------------

    def run(self) -> None:
        prepare_process()
        engine = RunLoop(self._executor, self._claims)
        with self._interruption.watched(), self._living(engine):
            while self._wait(engine):
                for body in self._take_bodies():
                    engine.add(self._executor.prepare(body))
                engine.work_off()

    async def run_async(self) -> None:
        prepare_process()
        engine = RunLoop(self._executor, self._claims, asyncio.get_running_loop())
        with self._living(engine):
            try:
                while await asyncio.to_thread(self._wait, engine):
                    for body in self._take_bodies():
                        await self._work_off(engine, self._executor.prepare(body))
            except asyncio.CancelledError:
                self._interruption.happened = True
                for task in engine.queue.tasks:
                    task.cancel()
                await asyncio.gather(*engine.queue.tasks)
                raise

    async def _work_off(self, engine: RunLoop, calls: Sequence[Call]) -> None:
        for call in calls:
            if engine.queue.full:
                await asyncio.to_thread(engine.queue.wait_for_room)
            engine.add([call])
            engine.work_off()
            engine.watch()
            await asyncio.sleep(0)

    @contextmanager
    def _living(self, engine: RunLoop) -> Iterator[None]:
        """Connect; in the end wait for acknowledgements and disconnect. Then raise the exception that was kept."""
        self._stream.start()
        try:
            with capture.installed(captures_logs()):
                yield
        finally:
            self._leave()
            engine.close()
            self._executor.logs.close()
        if self._executor.raised is not None:
            raise self._executor.raised

    def _leave(self) -> None:
        if self._executor.forked:
            leave_loop()  # a fork has returned to the caller's loop before it could exit
        self._claims.close()
        self._outbox.flush()
        unstarted, rest = self._claims.unstarted(), self._claims.rest()

        def return_nodes(session: Session) -> None:
            session.drain()
            for returned in (unstarted, rest):
                if returned.attempt:
                    session.give_back(0, returned)

        self._stream.say(return_nodes)
        timeout = ACKNOWLEDGE_TIMEOUT_S if self._stream.lost is None else 0
        self._stream.wait_for(lambda session: session.settled, timeout)
        self._stream.close()
        for sentence in left_behind(self._left):
            get_logger().warning("%s", sentence)

    def _wait(self, engine: RunLoop) -> bool:
        """Wait for nodes. Return False if the worker must shut down. Raises BrokerError."""
        engine.flush()
        while not self._stream.wait_for(lambda _: bool(self._bodies) or self._is_over(engine), LOSS_CHECK_INTERVAL_S):
            self._check_patience()
        if self._stream.refusal is not None:
            raise self._stream.refusal
        return not self._is_over(engine)

    def _is_over(self, engine: RunLoop) -> bool:
        if self._executor.raised is not None:
            return not engine.queue.busy
        return self._session.done or self._stream.closing or self._stream.refusal is not None

    def _check_patience(self) -> None:
        """Raise BrokerError if the broker has been unreachable for too long. With `stay`, wait forever."""
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
        held = self._claims.answered(outcome.attempts)
        if kind == Kind.RESULTS:
            self._stream.say(lambda session: session.report(held, outcome.body))
        else:
            returned = pb.Return.FromString(outcome.body)
            self._notices.gave_back(returned)
            self._stream.say(lambda session: session.give_back(0, returned))

    def _on_message(self, message: pb.BrokerMessage) -> None:
        if message.HasField("welcome"):
            self._connected = True
            self._executor.large_from = message.welcome.large_value_threshold or self._executor.large_from
        for grant in message.grants:
            self._claims.give(grant)
            self._pieces.append(grant.body)
            if grant.last:
                self._bodies.append(b"".join(self._pieces))
                self._pieces.clear()
        for wanted in message.take_back:
            if (returned := self._claims.take_back(wanted.attempt)).attempt:
                self._session.give_back(0, returned)
        self._session.done |= message.drain
        if message.cancel:
            self._claims.cancel(message.cancel)
        for request in message.stacks:
            self._session.answer(_stack_reply(request, self._claims.runs(request.attempt)))
        self._left.extend(message.left)
        self._claims.take_back(message.refused)
        self._claims.answered(message.refused)


def prepare_process() -> None:
    """Attribute threads, signals and timers to the node that uses them, and not to the caller, as in a child."""
    expect_threads()
    follow_threads()
    note_changes()


def _stack_reply(request: pb.StackRequest, is_running: bool) -> pb.StackReply:
    """Return the answer to a question about a node."""
    if not is_running:
        return pb.StackReply(number=request.number, problem="the worker does not run the node now")
    return pb.StackReply(number=request.number, stack="\n".join(_stacks()), note=STACK_NOTE)


def _stacks() -> Iterator[str]:
    """Yield the stack of each thread but this one, the latest call first, as faulthandler does."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            yield f"Thread {names.get(ident, ident)} (most recent call first):"
            for called in reversed(traceback.extract_stack(frame)):
                yield f'  File "{called.filename}", line {called.lineno} in {called.name}'
