"""A broker that does what a test tells it to: a real gRPC server that speaks `Work` and large values only."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api import broker_pb2_grpc as pb_grpc
from dagorama.client.channel import channel_options
from tests.proof.progress import patience
from tests.support.worker_grants import Wanted, grant_of, values_of
from tests.support.workers import fork_worker

WAIT = patience(30)  #: seconds after which something that should happen is taken not to


class Conversation:
    """One stream of a worker. Its messages are read at once; when it stops, so does the broker."""

    def __init__(self, messages: Iterator[pb.WorkerMessage]) -> None:
        self._incoming: queue.SimpleQueue[pb.WorkerMessage | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[pb.BrokerMessage | None] = queue.SimpleQueue()
        self._reports: list[pb.Report] = []
        self.returns: list[pb.Return] = []
        self.deaths: list[pb.SlotDeath] = []
        self.closed_slots: list[int] = []
        self.stacks: list[pb.StackReply] = []
        self.heartbeats = 0
        self.draining = False
        self.ended = False
        first = next(messages)
        self.hello = first.hello
        self._note(first)
        Thread(target=self._read, args=(messages,), daemon=True).start()

    def _read(self, messages: Iterator[pb.WorkerMessage]) -> None:
        with suppress(grpc.RpcError):
            for message in messages:
                self._incoming.put(message)
        self._incoming.put(None)
        self.end()

    def send(self, **fields: Any) -> None:
        self._outgoing.put(pb.BrokerMessage(**fields))

    def welcome(self, **fields: Any) -> None:
        usual = {"epoch": 1, "heartbeat": 60.0, "lease": 90.0, "large_value_threshold": 1 << 18}
        self.send(welcome=pb.Welcome(**{**usual, **fields}))

    def grant(self, *wanted: Wanted, slot: int = 0, large: Sequence[bytes] = ()) -> list[int]:
        """Their attempts."""
        grant = grant_of(*wanted, slot=slot, large=large)
        self.send(grants=[grant])
        return list(grant.attempt)

    def end(self) -> None:
        """Break the stream."""
        self._outgoing.put(None)

    def outgoing(self) -> Iterator[pb.BrokerMessage]:
        while (message := self._outgoing.get()) is not None:
            yield message

    # --- what the worker says -------------------------------------------------------------------------

    def listen(self, until: Callable[[], bool]) -> None:
        """Take messages until something holds."""
        while not until():
            message = self._incoming.get(timeout=WAIT)
            if message is None:
                self.ended = True
                assert until(), "the worker ended its stream"
            else:
                self._note(message)

    def _note(self, message: pb.WorkerMessage) -> None:
        self._reports += message.reports
        self.returns += message.returns
        self.deaths += message.deaths
        self.closed_slots += message.closed_slots
        self.stacks += message.stacks
        self.heartbeats += message.heartbeat
        self.draining = self.draining or message.draining

    def listen_to_the_end(self) -> None:
        self.listen(lambda: self.ended)

    def report(self) -> pb.Report:
        """The next one, not acknowledged."""
        self.listen(lambda: bool(self._reports))
        return self._reports.pop(0)

    def results(self) -> pb.Results:
        """The next ones, acknowledged."""
        report = self.report()
        self.send(acknowledged=report.sequence)
        return pb.Results.FromString(report.body)

    def values(self, count: int) -> dict[int, object]:
        """Return the next `count` values, by attempt."""
        found: dict[int, object] = {}
        while len(found) < count:
            results = self.results()
            assert not results.failures, results.failures
            found.update(zip(results.attempt, values_of(results), strict=True))
        return found

    def value(self) -> object:
        [value] = self.values(1).values()
        return value

    def returned(self) -> pb.Return:
        self.listen(lambda: bool(self.returns))
        return self.returns.pop(0)

    def stack(self, attempt: int) -> pb.StackReply:
        """The answer to the question where an attempt stands."""
        self.send(stacks=[pb.StackRequest(number=attempt, attempt=attempt)])
        self.listen(lambda: bool(self.stacks))
        reply = self.stacks.pop(0)
        assert reply.number == attempt
        return reply

    def death(self) -> pb.SlotDeath:
        self.listen(lambda: bool(self.deaths))
        return self.deaths.pop(0)


class ScriptedBroker(pb_grpc.BrokerServicer):
    def __init__(self) -> None:
        self._conversations: queue.SimpleQueue[Conversation] = queue.SimpleQueue()
        self._begun: list[Conversation] = []
        self.large: dict[bytes, bytes] = {}
        self.kept: list[pb.ImportValueRequest] = []  # what it was asked to keep
        self.folder: Path | None = None  # ... where
        self.keeps: set[bytes] = set()  # what it has from elsewhere
        self.put_refusals: list[tuple[grpc.StatusCode, str]] = []  #: of the values that come next
        self.refusals: list[tuple[grpc.StatusCode, str]] = []  #: of the streams that come next; the last one stays
        self.port = 0
        self._serve()

    def _serve(self) -> None:
        options = [*channel_options(), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        pb_grpc.add_BrokerServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """As a broker that is killed."""
        self._server.stop(None).wait()
        for conversation in self._begun:
            conversation.end()  # its thread waits for something to send

    def start_again(self) -> None:
        self._serve()

    def next_conversation(self) -> Conversation:
        return self._conversations.get(timeout=WAIT)

    def greeted(self, **welcome: Any) -> Conversation:
        conversation = self.next_conversation()
        conversation.welcome(**welcome)
        return conversation

    def Work(self, request_iterator: Iterator[pb.WorkerMessage], context: grpc.ServicerContext) -> Any:
        if self.refusals:
            context.abort(*(self.refusals.pop(0) if self.refusals[1:] else self.refusals[0]))
        conversation = Conversation(request_iterator)
        self._begun.append(conversation)
        self._conversations.put(conversation)
        yield from conversation.outgoing()

    def PutValue(self, request_iterator: Any, context: grpc.ServicerContext) -> pb.PutValueReply:
        data = b"".join(chunk.data for chunk in request_iterator)
        if self.put_refusals:
            context.abort(*self.put_refusals.pop(0))
        digest = sha256(data).digest()
        self.large[digest] = data
        return pb.PutValueReply(sha256=digest, length=len(data))

    def GetValue(self, request: pb.GetValueRequest, context: grpc.ServicerContext) -> Any:
        if request.sha256 not in self.large:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such value")
        data = self.large[request.sha256]
        for at in range(0, len(data), 1 << 20):
            yield pb.ValueChunk(data=data[at : at + (1 << 20)])

    def shares(self, folder: Path) -> pb.GetSharedFolderReply:
        """From now on it has a folder in sight of its workers."""
        self.folder = folder
        (folder / "unfinished").mkdir(parents=True)
        folder.chmod(0o700)
        (folder / "shared").write_text("the word")
        return pb.GetSharedFolderReply(path=str(folder), nonce="the word")

    def file_of(self, digest: bytes) -> Path:
        assert self.folder is not None
        name = digest.hex()
        return self.folder / name[:2] / name

    def ImportValue(self, request: pb.ImportValueRequest, context: grpc.ServicerContext) -> pb.ImportValueReply:
        self.kept.append(request)
        if self.folder is None:
            return pb.ImportValueReply(kept=request.sha256 in self.keeps)
        file, waits = self.file_of(request.sha256), self.folder / "unfinished" / request.unfinished
        if request.unfinished and waits.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            waits.replace(file)
        return pb.ImportValueReply(kept=file.exists())


class WorkerProcess:
    """The `worker` command as a process, which finds the tests' modules."""

    def __init__(self, broker: ScriptedBroker, *flags: str, **environment: str) -> None:
        reading, writing = os.pipe()
        self._stderr = open(reading)  # noqa: SIM115  # closed by kill()
        with open(os.devnull, "wb") as nothing:
            variables = {**environment_of(broker), **environment}
            self._process = fork_worker(list(flags), variables, (nothing.fileno(), writing))
        os.close(writing)
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send(number)

    def line(self) -> str:
        """The next line that it writes to stderr."""
        return self._stderr.readline()

    def ended(self) -> tuple[int, str]:
        """Exit code and what it wrote to stderr, once it and all of its children are gone: they share its pipe."""
        errors = self._stderr.read()
        return self._process.wait(), errors

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if not self._stderr.closed:
            self._stderr.read()
            self._stderr.close()


def environment_of(broker: ScriptedBroker) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "DAGORAMA_HOST": "127.0.0.1", "DAGORAMA_PORT": str(broker.port), "PYTHONPATH": root}


@contextmanager
def worker_process(broker: ScriptedBroker, *flags: str, **environment: str) -> Iterator[WorkerProcess]:
    process = WorkerProcess(broker, *flags, **environment)
    try:
        yield process
    finally:
        process.kill()
