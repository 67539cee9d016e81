"""A worker's supervisor: the stream with the broker on one side, the children on the other, and how all of it ends.

Everything happens in one event loop. Who is to run what is decided by the broker.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.client.certificates import meaning
from dagorama.client.channel import aio_channel, target
from dagorama.logging import get_logger
from dagorama.settings import Settings, WorkerOptions
from dagorama.worker.control_pipe import Lines
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.supervisor.child_pool import FAILED, LEFT, UNUSABLE, Children, Incomprehensible
from dagorama.worker.supervisor.fork_server import Nursery
from dagorama.worker.supervisor.notices import Notices, complain, left_behind
from dagorama.worker.supervisor.session import Session, hello
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.stream import Refused, Stream
from dagorama.worker.supervisor.transfers import Transfers

SILENCE = 3.0  #: seconds without a broker after which the worker says so
PROBE = 1.0  #: seconds to find out why
NOBODY = 5.0  #: ... after which one that is to leave when all is done gives up
BURIAL = 5.0  #: seconds for killed children to be reaped
SETTLING = 10.0  #: seconds for the last reports to be acknowledged
ACQUAINTANCE = 0.25  #: seconds that a worker whose first child is ready waits for an answer of the broker
FAREWELL = 2.0  #: seconds for idle children to leave by themselves, and for the stream to end


class Supervisor:
    """One worker. Made inside its event loop; `run` it once."""

    def __init__(
        self,
        options: WorkerOptions,
        key_ids: Sequence[bytes],
        nursery: Nursery,
        memory: SharedMemory,
        folder: Path,
        parent: Lines | None,
    ) -> None:
        """`key_ids` name the signing keys that the children hold."""
        self._options = options
        self._memory = memory
        self._parent = parent
        settings = Settings.from_env()
        self._address = target(settings)
        self._grace = settings.grace if options.grace is None else options.grace
        self._channel = aio_channel(settings)
        until = pb.DRAINED if options.exit_on_completion else pb.STOPPED
        self._session = Session(hello(options, key_ids, options.concurrency, until))
        self._stub = stub = BrokerStub(self._channel)
        self._trouble = ""  # what keeps it from the broker, where that can be told
        spool = Spool(folder)
        slots = [Slot(number, part) for number, part in enumerate(memory.slots)]
        self._children = Children(slots, nursery, self._session, Transfers(stub, spool), spool, self)
        self._stream = Stream(
            stub, self._session, lambda: self._children.held, self._on_message, self.changed, self._on_lost
        )
        self._loop = asyncio.get_running_loop()
        self._leaving = asyncio.Event()
        self._hurried = False
        self._change = asyncio.Event()
        self._code = 0
        self._is_ready = self._ready_told = self._was_welcomed = False
        self._notices = Notices(is_command=parent is None)

    async def run(self) -> int:
        """Until something asks to leave; the exit code."""
        self._listen()
        self._children.start()
        living = self._loop.create_task(self._live())
        await self._leaving.wait()
        await self._leave()
        self._stream.close()
        await asyncio.wait([living], timeout=FAREWELL if self._stream.heard else 0)
        living.cancel()
        self._speaking.cancel()
        await self._channel.close()
        return self._code

    # --- what the children's keeper asks for ----------------------------------------------------------

    def changed(self) -> None:
        self._change.set()
        self._stream.wake()

    def ask_to_leave(self, code: int = 0, why: str = "", hurried: bool = False) -> None:
        if why and not self._leaving.is_set():
            self._complain(why)
        self._code = self._code or code
        self._hurried = self._hurried or hurried or bool(code)
        self._leaving.set()
        self.changed()

    def _complain(self, why: str) -> None:
        complain(why)
        self.tell("failed", why)

    @property
    def code(self) -> int:
        return self._code

    def ready(self, definitions: str) -> None:
        if self._is_ready:
            return
        self._is_ready = True
        self._notices.started(self._options, definitions.splitlines())
        # A broker that is there has answered by then, and one that refuses the worker is heard before it is ready.
        self._loop.call_later(0 if self._session.welcome is not None else ACQUAINTANCE, self._tell_ready)

    def _tell_ready(self) -> None:
        if not self._ready_told:
            self._ready_told = True
            self.tell("ready")

    def gave_back(self, returned: pb.Return) -> None:
        self._notices.gave_back(returned)

    def tell(self, *words: object) -> None:
        if self._parent is not None:
            self._parent.say(*words)

    # --- what is heard --------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._told_to_leave)
        if self._parent is None:
            self._loop.add_signal_handler(signal.SIGINT, self._told_to_leave)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and decides
            self._loop.add_reader(self._parent, self._on_parent, self._parent)
        self._speaking = self._loop.create_task(self._speak_of_silence())
        if self._options.exit_on_completion:
            self._loop.call_later(NOBODY, self._give_up_on_silence)

    def _told_to_leave(self) -> None:
        self.ask_to_leave(hurried=self._leaving.is_set())

    def _on_parent(self, parent: Lines) -> None:
        lines = parent.read()
        if lines is None:
            self._loop.remove_reader(parent)
            self.ask_to_leave(hurried=True)
        for words, payload in lines or ():
            if words[0] == "end":
                self._end(self._children.slots[int(words[1])])
            elif words[0] == "define":
                self._children.define(payload)
                self.tell("defined")
            else:
                self.ask_to_leave(hurried=True)

    def _end(self, slot: Slot) -> None:
        """One child is to go for good, and the worker with the last of them."""
        self._children.end(slot)
        if all(slot.closed for slot in self._children.slots):
            self.ask_to_leave()

    async def _speak_of_silence(self) -> None:
        await asyncio.sleep(SILENCE)
        if self._session.welcome is None and not self._leaving.is_set():
            await self._look_for_trouble()
            what = f"no broker answers at {self._address} yet{self._trouble}"
            get_logger().warning("%s; the worker goes on trying", what)

    async def _look_for_trouble(self) -> None:
        """The stream waits for a broker without a word; a call that does not says what is in the way."""
        try:
            await self._stub.GetStatus(pb.GetStatusRequest(), timeout=PROBE)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            meant = meaning(details)
            self._trouble = f" ({meant})" if meant != details else ""

    def _give_up_on_silence(self) -> None:
        if not self._was_welcomed:  # one that is lost later is waited for
            what = f"no broker answers at {self._address}{self._trouble}"
            self.ask_to_leave(FAILED, f"{what}; start one with `dagorama-broker serve`")

    # --- the broker -----------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            await self._stream.live()
        except Refused as error:
            self.ask_to_leave(UNUSABLE, f"the broker at {self._address} refuses it: {error}")
        except Incomprehensible as error:
            self.ask_to_leave(
                FAILED,
                f"its session with the broker broke: the broker at {self._address} spoke of {error}; see that both are "
                "of the same version",
            )
        except Exception as error:
            self.ask_to_leave(FAILED, f"its session with the broker broke: {error!r}")
            raise

    def _on_lost(self, why: str) -> None:
        if not self._leaving.is_set():
            self._notices.lost(self._address, why)

    def _on_message(self, message: pb.BrokerMessage) -> None:
        children = self._children
        if message.HasField("welcome"):
            self._was_welcomed = True
            self._notices.connected(self._address)
            if self._is_ready:
                self._tell_ready()
            self._memory.large_from = message.welcome.large_from
            children.cancel_grace = message.welcome.cancel_grace
            children.share(message.welcome.values)
        for grant in message.grants:
            children.grant(grant)
        for wanted in message.take_back:
            children.take_back(wanted.slot, wanted.attempt)
        if message.refused:
            children.drop(message.refused)
        if message.cancel:
            children.cancel(message.cancel)
        children.acknowledged()
        if message.done:
            self._complete(message.left)
        self.changed()

    def _complete(self, left: Sequence[pb.Unservable]) -> None:
        """What `until` asked for has come; there may be nodes that no worker can run."""
        self._tell_ready()  # there is nothing to be ready for: it has started well, whatever is left
        for sentence in left_behind(left) if not self._leaving.is_set() else ():
            self._code = LEFT
            self._complain(sentence)
        self.ask_to_leave()

    # --- leaving --------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Take nothing more, let finish what runs, return the rest, see all of it acknowledged."""
        children = self._children
        self._session.drain()
        for slot in children.slots:
            children.close(slot)
        self.changed()
        await self._until(lambda: children.idle or self._hurried, self._grace)
        for slot in children.slots:
            if len(slot):
                children.kill(slot)
        await self._until(lambda: children.idle, BURIAL)
        await self._until(lambda: self._session.settled, FAREWELL if self._hurried else SETTLING)
        await self._until(lambda: self._session.has_said_draining, FAREWELL if self._stream.heard else 0)
        children.send_off()
        await self._until(lambda: not children.alive, FAREWELL)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """At most so long."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            pass
