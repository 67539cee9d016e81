"""A simulated worker: the real session, messages and executor, in this thread, with one slot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import compress
from math import inf
from time import monotonic_ns
from typing import NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.client.large_values import LargeValues
from dagorama.values.signing import keyring
from dagorama.worker.child.call import Call
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.failures import describe, timeout_error
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.in_process.claim_table import ClaimTable
from dagorama.worker.in_process.worker import prepare_process
from dagorama.worker.supervisor.session import Held, Session, hello
from dagorama_testing.broker import OURS, InlineBroker
from dagorama_testing.calls import Call as BrokerCall
from dagorama_testing.executor import InlineExecutor
from dagorama_testing.loop import running
from dagorama_testing.records import NodeRun, SimulatedWorker
from dagorama_testing.rules import Rules

KILLED = "killed by SIGKILL"


class _Running(NamedTuple):
    """An async node that runs."""

    attempt: int
    is_cancelled: Callable[[], bool]


class _Hanging(NamedTuple):
    """A node that does not end by itself before its timeout."""

    call: Call
    run: NodeRun
    entry: int  #: in the table of claims
    until: float  #: by the clock of the broker


class InlineWorker:
    """A worker that runs the nodes that it is granted when `run_one` is called."""

    def __init__(self, broker: InlineBroker, kind: SimulatedWorker, rules: Rules, large: LargeValues) -> None:
        prepare_process()
        self.kind = kind
        self.tasks: dict[asyncio.Task[int], _Running] = {}  #: of async nodes that run
        self._broker = broker
        self._rules = rules
        self._claims = ClaimTable()
        self._outbox = Outbox(broker.locked(self._send))
        self._outbox.on_waiting = self.flush
        self.executor = InlineExecutor(self._outbox, large, rules, self._begin)
        self._queue: deque[Call] = deque()
        self._ordinal = 0
        self._final: set[int] = set()  # attempts that are not retried if they exceed their timeout
        self._dropped: set[int] = set()  # attempts of async nodes that ended with their child process
        self._hanging: _Hanging | None = None
        self._pieces: list[bytes] = []
        self._call: BrokerCall | None = None
        self._session = self._new_session(set())

    def _new_session(self, taints: set[str]) -> Session:
        hi = hello(self.kind.options, keyring().ids, 1, pb.STOPPED)
        hi.name = self.kind.name
        if self.kind.tolerations is None:
            hi.tolerations.extend(sorted(taints))
        self._taints = taints
        self._hello = hi
        return Session(hi)

    # --- the stream -----------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a stream, and present what is held."""
        self._session.open(self._claims.held)
        self._call = self._broker.call(f"{OURS}Work", None, self._receive)
        self._pump()

    @property
    def is_connected(self) -> bool:
        """Whether there is a stream."""
        return self._call is not None and not self._call.is_over

    def tolerate(self, taints: set[str]) -> bool:
        """Connect again with these tolerations too, if it tolerates every taint. Return whether it had to."""
        if self.kind.tolerations is not None or taints <= self._taints:
            return False
        self.flush()
        self._taints = self._taints | taints
        self._hello.tolerations.extend(sorted(taints - set(self._hello.tolerations)))
        self._hang_up()
        self.connect()
        return True

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.on_reply = lambda reply: None
            self._call.cancel()
            self._broker.settle()

    def _pump(self) -> None:
        """Send all messages of the session."""
        if self._call is None:
            return
        while (message := self._session.next_message()) is not None:
            self._call.requests.add(message)

    def _receive(self, data: bytes) -> None:
        message = pb.BrokerMessage.FromString(data)
        self._session.receive(message)
        if message.HasField("welcome"):
            self.executor.large_from = message.welcome.large_value_threshold or self.executor.large_from
        for grant in message.grants:
            self._claims.give(grant)
            self._final.update(compress(grant.attempt, grant.timeout_is_final))
            self._pieces.append(grant.body)
            if grant.last:
                self._queue.extend(self.executor.prepare(b"".join(self._pieces)))
                self._pieces.clear()
        for wanted in message.take_back:
            if (returned := self._claims.take_back(wanted.attempt)).attempt:
                self._session.give_back(0, returned)
        if message.cancel:
            self._claims.cancel(message.cancel)
            self._cancel_tasks()
        self._claims.take_back(message.refused)
        self._claims.answered(message.refused)
        if self._session.keeps_too_much:
            self._session.tidy(self._claims.held)
        self._pump()

    def _cancel_tasks(self) -> None:
        if self._hanging is not None and self._claims.is_cancelled(self._hanging.entry, self._ordinal - 1):
            self._stop_hanging()
        for task, node in list(self.tasks.items()):
            if node.is_cancelled():
                task.cancel()

    def _send(self, kind: Kind, outcome: Outcome) -> None:
        held = self._claims.answered(outcome.attempts)
        if kind == Kind.RESULTS:
            self._session.report(held, outcome.body)
        else:
            self._session.give_back(0, pb.Return.FromString(outcome.body))

    def flush(self) -> None:
        """Send all results."""
        with self._broker.lock:
            self._outbox.flush()
            if self._hanging is None:
                self._claims.finish(0)
            self._pump()

    # --- nodes ----------------------------------------------------------------------------------------

    @property
    def has_nodes(self) -> bool:
        """Whether a node waits here for its turn, and no other one hangs."""
        return bool(self._queue) and self._hanging is None

    @property
    def due_at(self) -> float:
        """The time at which a node exceeds its timeout; infinity if none hangs."""
        return inf if self._hanging is None else self._hanging.until

    def run_one(self, loop: Callable[[], asyncio.AbstractEventLoop]) -> bool:
        """Run the next node, or start it on `loop()` if it is async. Return whether there was one to run."""
        with self._broker.lock:
            call, ordinal, now = self._queue.popleft(), self._ordinal, monotonic_ns()
            self._ordinal += 1
            entry = ordinal + 1 if call.work.is_async else 0
            if not self._claims.start(ordinal, entry, now):
                self.executor.skip(call)
                self._flush_if_idle()
                return False
            if self._breaks_down(call):
                return True
        is_cancelled = partial(self._is_cancelled, self._claims, entry, ordinal, call.attempt)
        if call.work.is_async:
            task = loop().create_task(self.executor.run_async(call, now, is_cancelled))
            self.tasks[task] = _Running(call.attempt, is_cancelled)
            task.add_done_callback(self._broker.locked(lambda task: self._async_ended(task, entry)))
        else:
            with running(None):
                self.executor.run(call, now, is_cancelled)
        self._flush_if_idle()
        return True

    def _is_cancelled(self, claims: ClaimTable, entry: int, ordinal: int, attempt: int) -> bool:
        return attempt in self._dropped or claims.is_cancelled(entry, ordinal)

    def _flush_if_idle(self) -> None:
        if not self._queue:
            self.flush()

    def _async_ended(self, task: asyncio.Task[int], entry: int) -> None:
        del self.tasks[task]
        self.flush()
        self._claims.finish(entry)

    def _begin(self, call: Call) -> NodeRun:
        return NodeRun(
            call.work.name, UUID(bytes=call.instance), UUID(bytes=call.id), call.runs + 1, self.kind.name,
            self._broker.elapsed,
        )  # fmt: skip

    # --- breaking down --------------------------------------------------------------------------------

    def _breaks_down(self, call: Call) -> bool:
        """Return whether the child or the whole worker is gone instead of running this node."""
        function = self.executor.function_of(call) if self._rules.has_breakdowns else None
        if function is None:
            return False
        rules, run = self._rules, self._begin(call)
        if rules.is_lost(function):
            self.lose()
        elif rules.dies(function):
            self._die(call)
        elif rules.hangs(function):
            self._outbox.flush()
            self._pump()
            entry = self._ordinal if call.work.is_async else 0
            self._hanging = _Hanging(call, run, entry, self._broker.clock.monotonic() + call.work.timeout)
        else:
            return False
        run.died = self._hanging is None
        rules.runs.append((function, run))
        return True

    def time_out(self) -> None:
        """Stop the child process if its node has exceeded its timeout; others that it runs are run again."""
        hanging = self._hanging
        if hanging is None or hanging.until > self._broker.clock.monotonic():
            return
        call, seconds = hanging.call, hanging.call.work.timeout
        hanging.run.error = error = timeout_error(seconds)
        self.executor.errors[hanging.run.node_id] = hanging.run
        failure = describe(error, call.node, call.attempt, int(seconds * 1e6))
        failure.traceback, failure.final = "", call.attempt in self._final
        if (held := self._claims.answered([call.attempt])).attempts:
            self._session.report(held, pb.Results(failures=[failure]).SerializeToString())
        self._stop_hanging()

    def _stop_hanging(self) -> None:
        """End the child process of a node that hangs, as the supervisor does: its other nodes are returned."""
        if self._hanging is not None:
            self._claims.finish(self._hanging.entry)
        running = self._claims.answered([node.attempt for node in self.tasks.values()])
        interrupted = pb.Return(node=running.nodes, attempt=running.attempts, reason=pb.INTERRUPTED)
        for returned in (self._claims.unstarted(), interrupted):
            if returned.attempt:
                self._session.give_back(0, returned)
        self._drop_all()
        self._pump()

    def _die(self, call: Call) -> None:
        """End the child process: it reports what it had finished, and another one takes its place."""
        self.flush()
        unstarted = self._claims.unstarted()
        running = self._claims.answered([call.attempt, *(node.attempt for node in self.tasks.values())])
        self._drop_all()
        held = Held(0, [*running.nodes, *unstarted.node], [*running.attempts, *unstarted.attempt])
        death = pb.SlotDeath(slot=0, running=running.attempts, unstarted=unstarted.attempt, cause=KILLED)
        self._session.died(held, death)
        self._pump()

    def lose(self) -> None:
        """End the worker and its connection, with all that it holds; another one of its kind connects at once."""
        self._hang_up()
        self._drop_all()
        self._claims, self._ordinal = ClaimTable(), 0
        self._session = self._new_session(self._taints)
        self.connect()

    def _drop_all(self) -> None:
        self._hanging = None
        for call in self._queue:
            self.executor.skip(call)
        self._ordinal += len(self._queue)
        self._queue.clear()
        for task, node in self.tasks.items():
            self._dropped.add(node.attempt)
            task.cancel()

    def close(self) -> None:
        """End the worker."""
        self._hang_up()
        self._drop_all()
