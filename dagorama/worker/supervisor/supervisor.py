"""The supervisor of a worker: it connects the stream to the broker with the children, and shuts both down.

Everything runs in one event loop. Only the broker decides which node runs where.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.client.addresses import address
from dagorama.client.channel import aio_channel
from dagorama.settings import Settings, WorkerOptions, broker_wait
from dagorama.worker.control_pipe import ControlPipe
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.supervisor.calls import WorkCalls
from dagorama.worker.supervisor.child_pool import FAILED, LEFT, UNUSABLE, ChildPool, PoolEvents
from dagorama.worker.supervisor.figures import Figures
from dagorama.worker.supervisor.fork_server import ForkServer
from dagorama.worker.supervisor.granted_nodes import Incomprehensible
from dagorama.worker.supervisor.notices import Notices, complain, left_behind
from dagorama.worker.supervisor.own_end import Events, Manner, OwnEnd
from dagorama.worker.supervisor.session import Session, hello
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.stacks import Stacks
from dagorama.worker.supervisor.stream import Refused, Stream
from dagorama.worker.supervisor.transfers import Transfers
from dagorama.worker.supervisor.waits import Change, SilentBroker

NO_BROKER_TIMEOUT_S = 5.0  #: time without a broker after which a worker with --exit-on-completion gives up
WELCOME_TIMEOUT_S = 0.25  #: time that a ready worker waits for the broker before it reports to its launcher
REAP_TIMEOUT_S = 5.0  #: time for killed children to be reaped
ACKNOWLEDGE_TIMEOUT_S = 10.0  #: time for the broker to acknowledge the last reports
SHUTDOWN_GRACE_S = 2.0  #: time for idle children to exit by themselves, and for the stream to end


class Supervisor:
    """One worker. Construct it inside its event loop, and call `run` once."""

    def __init__(
        self,
        options: WorkerOptions,
        key_ids: Sequence[bytes],
        fork_server: ForkServer,
        memory: SharedMemory,
        folder: Path,
        parent: ControlPipe | None,
    ) -> None:
        """Prepare everything without connecting. `key_ids` are the IDs of the signing keys that the children have."""
        self._options, self._memory, self._parent = options, memory, parent
        settings = Settings.from_env()
        self._address = address(settings)
        self._longest_silence = broker_wait() if len(settings.hosts) > 1 else NO_BROKER_TIMEOUT_S
        self._grace = settings.grace if options.grace is None else options.grace
        self._channel = aio_channel(settings)
        until = pb.DRAINED if options.exit_on_completion else pb.STOPPED
        self._session = Session(hello(options, key_ids, options.concurrency, until))
        stub = BrokerStub(self._channel)
        self._silent = SilentBroker(stub, settings)
        spool = Spool(folder)
        slots = [Slot(number, part) for number, part in enumerate(memory.slots)]
        self._transfers = Transfers(stub, spool)
        self.figures = Figures(slots, self._session, self._transfers, memory.run_times)
        self._notices = Notices(is_command=parent is None)
        events = PoolEvents(
            self._on_ready, self._notices.gave_back, self._on_change, self._on_started, self._on_ended,
            self.figures.died, self._ask_to_leave,
        )  # fmt: skip
        self._children = ChildPool(slots, fork_server, self._session, self._transfers, spool, events)
        self._stacks = Stacks(slots, self._session, self._children.dump, self._children.io.write, self._on_change)
        calls = WorkCalls(stub, settings)
        self._stream = Stream(
            calls.open, self._session, lambda: self._children.held, self._on_message, self._on_change, self._on_lost
        )
        self._loop = asyncio.get_running_loop()
        self._leaving, self._change = asyncio.Event(), Change()
        self._code = 0
        self._hurried = self._is_ready = self._ready_sent = self._was_welcomed = False
        self._is_patient = False  # running nodes may finish, however long they take

    async def run(self) -> int:
        """Run until shutdown is requested, then shut down and return the exit code."""
        self._listen()
        self._children.start()
        living = self._loop.create_task(self._live())
        await self._leaving.wait()
        await self._leave()
        self._stream.close()
        await asyncio.wait([living], timeout=SHUTDOWN_GRACE_S if self._stream.heard else 0)
        living.cancel()
        for task in self._tasks:
            task.cancel()
        await self._channel.close()
        return self._code

    @property
    def obstacle(self) -> str:
        """Return why the worker takes no nodes now; empty: it does. May be called in any thread."""
        if self._leaving.is_set():
            return "the worker is leaving"
        if self._session.welcome is None:
            return f"it is not connected to the broker at {self._address}"
        return "" if self._is_ready else "none of its child processes is ready yet"

    # --- events of the children -----------------------------------------------------------------------

    def _on_change(self) -> None:
        self._change.set()
        self._stream.wake()

    def _on_ready(self, definitions: str) -> None:
        if self._is_ready:
            return
        self._is_ready = True
        self._notices.started(self._options, definitions.splitlines())
        # By then a reachable broker has answered, so that a worker that it refuses does not report that it is ready.
        delay = 0 if self._session.welcome is not None else WELCOME_TIMEOUT_S
        self._loop.call_later(delay, self._tell_ready)

    def _on_started(self, slot: int, pid: int) -> None:
        self._tell("started", slot, pid)

    def _on_ended(self, slot: int, code: int) -> None:
        self._tell("ended", slot, code or self._code)

    def _ask_to_leave(self, code: int = 0, why: str = "", hurried: bool = False) -> None:
        """Request shutdown, with a reason to print; `hurried`, or an exit code, ends running nodes at once."""
        if why and not self._leaving.is_set():
            self._complain(why)
        self._code = self._code or code
        self._hurried = self._hurried or hurried or bool(code)
        self._is_patient = False
        self._leaving.set()
        self._on_change()

    def _complain(self, why: str) -> None:
        complain(why)
        self._tell("failed", why)

    def _tell_ready(self) -> None:
        if not self._ready_sent:
            self._ready_sent = True
            self._tell("ready")

    def _tell(self, *words: object) -> None:
        """Send a message to the program that launched the worker, if there is one."""
        if self._parent is not None:
            self._parent.say(*words)

    # --- signals, launcher ------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._on_termination_signal)
        if self._parent is None:
            self._loop.add_signal_handler(signal.SIGINT, self._on_termination_signal)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launching program receives it too, and decides
            self._loop.add_reader(self._parent, self._on_parent, self._parent)
        options, silence = self._options, self._longest_silence
        own_end = OwnEnd(options, self._memory.run_times, Events(self._activity, self._leave_by_itself))
        self._tasks = [self._loop.create_task(self._silent.warn(self._hears_nothing)), *own_end.watch()]
        if options.exit_on_completion or options.idle is not None:
            self._loop.call_later(max(silence, options.idle or 0.0), self._give_up_on_silence)

    def _on_termination_signal(self) -> None:
        self._ask_to_leave(hurried=self._leaving.is_set() and not self._is_patient)

    def _on_parent(self, parent: ControlPipe) -> None:
        lines = parent.read()
        if lines is None:
            self._loop.remove_reader(parent)
            self._ask_to_leave(hurried=True)
        for words, payload in lines or ():
            if words[0] == "end":
                self._end(self._children.slots[int(words[1])])
            elif words[0] == "define":
                self._children.define(payload)
                self._tell("defined")
            else:
                self._ask_to_leave(hurried=True)

    def _end(self, slot: Slot) -> None:
        """End one child and close its slot. After the last one, shut down."""
        self._children.end(slot)
        if all(slot.closed for slot in self._children.slots):
            self._ask_to_leave()

    def _hears_nothing(self) -> bool:
        return self._session.welcome is None and not self._leaving.is_set()

    def _give_up_on_silence(self) -> None:
        if not self._was_welcomed:  # a connection that is lost later is retried forever
            self._ask_to_leave(FAILED, f"{self._silent.text}; start one with `dagorama-broker serve`")

    # --- leaving by itself ------------------------------------------------------------------------------

    def _activity(self) -> int | None:
        """Return the number of reports so far; None if the worker has something to do, or has met no broker yet."""
        is_idle = self._was_welcomed and self._children.idle and self._session.settled
        return self._session.reported if is_idle else None

    def _leave_by_itself(self, why: str, manner: Manner) -> None:
        if self._leaving.is_set() and manner is not Manner.HURRIED:
            return
        self._notices.leaves(why)
        self._ask_to_leave(hurried=manner is Manner.HURRIED)
        self._is_patient = manner is Manner.PATIENT

    # --- the broker -----------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            await self._stream.live()
        except Refused as error:
            self._ask_to_leave(UNUSABLE, f"the broker at {self._address} refuses it: {error}")
        except Incomprehensible as error:
            self._ask_to_leave(
                FAILED,
                f"its session with the broker failed: unexpected message from the broker at {self._address}: {error}; "
                "check that the versions of worker and broker match",
            )
        except Exception as error:
            self._ask_to_leave(FAILED, f"its session with the broker failed: {error!r}")
            raise

    def _on_lost(self, why: str) -> None:
        if not self._leaving.is_set():
            self._notices.lost(self._address, why)

    def _on_message(self, message: pb.BrokerMessage) -> None:
        children = self._children
        if message.HasField("welcome"):
            self._was_welcomed = True
            self.figures.welcomed()
            self._notices.connected(self._address)
            if self._is_ready:
                self._tell_ready()
            self._memory.large_from = message.welcome.large_value_threshold
            children.nodes.cancel_grace = message.welcome.cancel_grace
            self._transfers.share(message.welcome.values)
        for grant in message.grants:
            children.nodes.grant(grant)
        for wanted in message.take_back:
            children.nodes.take_back(wanted.slot, wanted.attempt)
        if message.refused:
            children.nodes.drop(message.refused)
        if message.cancel:
            children.nodes.cancel(message.cancel)
        for request in message.stacks:
            self._stacks.ask(request)
        children.io.resume()
        if message.done:
            self._complete(message.left)
        if message.drain and not self._leaving.is_set():
            self._notices.drained()
            self._ask_to_leave()
        self._on_change()

    def _complete(self, left: Sequence[pb.Unschedulable]) -> None:
        """Shut down because the work is complete, except for nodes that no connected worker can run."""
        self._tell_ready()  # even if no child is ready yet: the start was successful
        for sentence in left_behind(left) if not self._leaving.is_set() else ():
            self._code = LEFT
            self._complain(sentence)
        self._ask_to_leave()

    # --- leaving --------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Accept no more nodes, let running ones finish, return the others, and wait for acknowledgements."""
        children = self._children
        self._session.drain()
        for slot in children.slots:
            children.close(slot)
        self._on_change()
        await self._change.until(lambda: children.idle or not self._is_patient, None)
        await self._change.until(lambda: children.idle or self._hurried, self._grace)
        if self._grace and not (children.idle or self._hurried):
            self._notices.interrupts(children.running, self._grace)
        children.kill_busy()
        await self._change.until(lambda: children.idle, REAP_TIMEOUT_S)
        acknowledge_timeout = SHUTDOWN_GRACE_S if self._hurried else ACKNOWLEDGE_TIMEOUT_S
        await self._change.until(lambda: self._session.settled, acknowledge_timeout)
        await self._change.until(lambda: self._session.has_said_draining, SHUTDOWN_GRACE_S if self._stream.heard else 0)
        children.send_off()
        await self._change.until(lambda: not children.alive, SHUTDOWN_GRACE_S)
