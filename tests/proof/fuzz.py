"""Whatever comes over the wire: a broker process lives on, in bounded memory, and serves an honest caller as before.

Raw bytes on its port, raw bytes in each of its calls, and well-formed messages with wrong contents, made from the
contract itself: a call that is added is fuzzed too. `python -m tests.proof.fuzz [--examples N] [--seed N]`.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from dagorama.api import api_pb2, broker_pb2, externalscaler_pb2
from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker.launch import LaunchedBroker, launch_broker

from .progress import made, patience

#: Seconds that one call may take; an honest one takes milliseconds.
PATIENCE = patience(5.0)
#: Seconds for which a call that may rightly wait forever is kept open; nothing follows from how it ends then.
LISTENS = 0.5
WAITS = ("Wait", "Exchange", "Work", "WatchQueues", "Events", "WatchNodes", "GetLogs", "WatchDemand", "StreamIsActive")
#: Bytes that a broker may grow by, whatever is sent: buffers, caches, and what was really submitted.
GROWTH = 200 << 20
SERVICES = (
    broker_pb2.DESCRIPTOR.services_by_name["Broker"],
    api_pb2.DESCRIPTOR.services_by_name["Dagorama"],
    externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"],
)
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
INSTANCE, ORIGIN = b"i" * 16, b"o" * 12
#: A worker that can replace its own earlier session.
WORKER: dict[str, Any] = {"worker": sha256(b"s" * 32).digest()[:16], "secret": b"s" * 32}

_IDS = st.sampled_from([INSTANCE, ORIGIN, ORIGIN + bytes(4), b"", b"x", b"y" * 16, bytes(12), b"\xff" * 16])
_NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 1 << 16, (1 << 31) - 1])
_VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BYTES: st.one_of(_IDS, st.binary(max_size=40)),
    FieldDescriptor.TYPE_STRING: st.one_of(st.sampled_from(["", "work", "\0", "a" * 5_000]), st.text(max_size=8)),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 1e308, float("nan"), float("inf")]), st.floats()
    ),
    FieldDescriptor.TYPE_UINT32: st.one_of(_NUMBERS, st.just((1 << 32) - 1)),
    FieldDescriptor.TYPE_INT32: st.one_of(_NUMBERS, st.just(-1)),
    FieldDescriptor.TYPE_SINT32: st.one_of(_NUMBERS, st.just(-1)),
    FieldDescriptor.TYPE_UINT64: st.one_of(_NUMBERS, st.just((1 << 64) - 1), st.just(1 << 63)),
    FieldDescriptor.TYPE_INT64: st.one_of(_NUMBERS, st.just(-(1 << 63))),
    FieldDescriptor.TYPE_SINT64: st.one_of(_NUMBERS, st.just(-1), st.just(-2), st.just(-(1 << 63))),
}  # fmt: skip


@st.composite
def contents(draw: Any, of: Descriptor, depth: int = 0) -> Any:
    """A well-formed message with anything in it."""
    message = GetMessageClass(of)()
    for each in of.fields:
        if draw(st.integers(0, 3)) < (1 if depth < 2 else 2):
            continue
        if each.message_type is not None and depth > 3:
            continue
        for _ in range(draw(st.integers(0, 3)) if each.is_repeated else 1):
            _put(message, each, draw(_value(each, depth)))
    return message


def _put(message: Any, of: FieldDescriptor, value: Any) -> None:
    """Set a field, or add to a repeated one; `value` of a map is one of its entries."""
    if of.message_type is None and of.is_repeated:
        getattr(message, of.name).append(value)
    elif of.message_type is None:
        setattr(message, of.name, value)
    elif of.message_type.GetOptions().map_entry:
        getattr(message, of.name)[value.key] = value.value
    elif of.is_repeated:
        getattr(message, of.name).add().CopyFrom(value)
    else:
        getattr(message, of.name).CopyFrom(value)


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.full_name == "dagorama.v1.Report.body":
        return contents(pb.Results.DESCRIPTOR, depth).map(lambda results: results.SerializeToString())
    if field.message_type is not None:
        return contents(field.message_type, depth + 1)
    if field.enum_type is not None:
        return st.sampled_from([*(value.number for value in field.enum_type.values), 77])
    return _VALUES[field.type]


@st.composite
def nearly_right(draw: Any) -> tuple[str, list[Any]]:
    """A call as an honest peer makes it, with one or two fields that are wrong."""
    name, messages = draw(st.sampled_from(TEMPLATES))
    messages = [type(message).FromString(message.SerializeToString()) for message in messages]
    for _ in range(draw(st.integers(1, 2))):
        message = draw(st.sampled_from(messages))
        while True:
            of = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
            deeper = of.message_type is not None and draw(st.integers(0, 4))
            if not deeper or not _present(message, of):
                break
            message = draw(st.sampled_from(_present(message, of)))
        _spoil(draw, message, of)
    return name, messages


def _present(message: Any, of: FieldDescriptor) -> list[Any]:
    if of.is_repeated:
        is_map = of.message_type is not None and of.message_type.GetOptions().map_entry
        return [] if is_map else list(getattr(message, of.name))
    return [getattr(message, of.name)] if message.HasField(of.name) else []


def _spoil(draw: Any, message: Any, of: FieldDescriptor) -> None:
    value = draw(_value(of, 3))
    column = getattr(message, of.name)
    if of.is_repeated and of.message_type is None and len(column) and draw(st.booleans()):
        column[draw(st.integers(0, len(column) - 1))] = value
    else:
        _put(message, of, value)


def _templates() -> list[tuple[str, list[Any]]]:
    function = pb.Function(name="work", hash="h", retry=pb.Retry(max_attempts=2), queue="fuzz")
    nodes = pb.Nodes(
        instance=INSTANCE,
        origin=ORIGIN,
        function=[0, 0, 0],
        arguments=[b"\1\0a"] * 3,
        source_count=[0, 1, 2],
        source=[0, 0, 1],
        tolerant=[1],
        keys=["k"],
        key=[0, 1, 0],
        creates=pb.NewInstance(definition="work:Task", entry=ORIGIN + bytes(4)),
    )
    submission = pb.SubmitRequest(functions=[function], nodes=[nodes])
    held = pb.HeldGrant(node=[1, 2], attempt=[(1 << 40) + 1, (1 << 40) + 2], proof=b"p" * 16)
    presence = pb.Hello(
        protocol=1,
        **WORKER,
        name="fuzz",
        slots=2,
        include_queues=["fuzz"],
        held_node=[1],
        held_attempt=[(1 << 40) + 1],
        held_slot=[0],
        grants=[held],
    )
    hello = pb.WorkerMessage(hello=presence)
    # Attempts of the broker's first epoch, some of which are this worker's by then.
    attempts = [(1 << 40) + number for number in range(1, 6)]
    children = pb.Children(
        node=1,
        attempt=attempts[0],
        nodes=pb.Nodes(
            instance=INSTANCE,
            origin=b"c" * 12,
            function=[0],
            arguments=[b"\1\0c"],
            foreign=[ORIGIN + bytes(4)],
            source_count=[1],
            source=[-1],
        ),
    )
    results = pb.Results(
        node=[1, 2],
        attempt=attempts[:2],
        value=[b"\1\0v"] * 2,
        microseconds=[5, 5],
        ref_count=[1, 1],
        ref=[0, -1],
        foreign=[ORIGIN + bytes(4)],
        functions=[function],
        children=[children],
        failures=[pb.Failure(node=3, attempt=attempts[2], type="E", message="m")],
        logs=[pb.NodeLog(node=1, attempt=attempts[0], sequence=1, first=1, last=2, size=3, records=b"\n\0")],
        reports=[pb.NodeReport(key=1, attempt=attempts[0], message="m", fraction=0.5)],
    )
    said = pb.WorkerMessage(
        reports=[pb.Report(sequence=1, body=results.SerializeToString())],
        returns=[pb.Return(node=[4], attempt=[attempts[3]])],
        deaths=[pb.SlotDeath(running=[attempts[4]], cause="SIGSEGV")],
        heartbeat=True,
        stacks=[pb.StackReply(number=1, stack="s")],
    )
    wait = pb.WaitRequest(instance=INSTANCE, node=[ORIGIN + bytes(4)], now=True)
    return [
        ("SubmitStream", [submission, pb.SubmitRequest()]),
        ("Work", [hello, said]),
        ("Work", [hello, said, said]),
        ("Wait", [wait]),
        ("Exchange", [pb.Requests(request=[pb.Request(number=1, submit=submission), pb.Request(number=2, wait=wait)])]),
        (
            "Exchange",
            [
                pb.Requests(request=[pb.Request(number=3, wait=wait)]),
                pb.Requests(request=[pb.Request(number=3, cancel=True)]),
            ],
        ),
        ("Cancel", [pb.CancelRequest(instance=INSTANCE, node=[ORIGIN + bytes(4)])]),
        ("GetInstance", [pb.GetInstanceRequest(instance=INSTANCE)]),
        ("ExplainNode", [pb.ExplainNodeRequest(instance=INSTANCE, node=ORIGIN + bytes(4))]),
        ("ExplainNode", [pb.ExplainNodeRequest(instance=INSTANCE)]),
        ("PauseQueue", [pb.PauseQueueRequest(queue="paused")]),
        ("PauseQueue", [pb.PauseQueueRequest(queue="paused", resume=True)]),
        ("Watch", [pb.WatchRequest(instance=INSTANCE, now=True)]),
        ("FindIds", [pb.FindIdsRequest(instance=INSTANCE.hex()[:8], node=[ORIGIN.hex()[:8], "/1"])]),
        ("NameNodes", [pb.NameNodesRequest(node=[ORIGIN + bytes(4)])]),
        ("ListFailures", [pb.ListFailuresRequest(instance=INSTANCE, definition="a:B", limit=3)]),
        ("GetShape", [pb.GetShapeRequest(instance=INSTANCE)]),
        ("WatchQueues", [pb.WatchQueuesRequest(queue="q", now=True)]),
        ("Events", [pb.EventsRequest(instance=INSTANCE)]),
        ("GetMap", [pb.GetMapRequest(instance=INSTANCE, after=1, sources=True, limit=2)]),
        ("WatchNodes", [pb.WatchNodesRequest(instance=INSTANCE)]),
        ("Demand", [pb.DemandRequest(include_queues=["q"], tolerations=["t"], key_ids=[b"k"], horizon=1.0, share=0.5)]),
        ("WatchDemand", [pb.DemandRequest(exclude_queues=["q"])]),
        ("GetSeries", [pb.GetSeriesRequest(resolution=10)]),
        ("ListActions", [pb.ListActionsRequest(limit=3, before=9)]),
        ("ListNodes", [pb.ListNodesRequest(instance=INSTANCE, worker="w", min_microseconds=1, min_failed_attempts=1)]),
        ("Delete", [pb.DeleteRequest(instance=ORIGIN + bytes(4))]),
        ("DrainWorker", [pb.DrainWorkerRequest(worker=ORIGIN)]),
        ("GetLogs", [pb.GetLogsRequest(instance=INSTANCE, node=ORIGIN + bytes(4), attempt=1)]),
        ("GetStack", [pb.GetStackRequest(instance=INSTANCE, node=ORIGIN + bytes(4))]),
    ]


TEMPLATES = _templates()


@dataclass
class Fuzzer:
    broker: LaunchedBroker
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(self.broker.address)
        self.memory = self._memory()
        self.honest()

    def _memory(self) -> int:
        """Bytes that the broker process has in memory."""
        pages = int(Path(f"/proc/{self.broker.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # --- what is sent ---------------------------------------------------------------------------------

    def call(self, method: MethodDescriptor, requests: list[bytes]) -> None:
        """One call with these bytes; a refusal is an answer, a silence is not."""
        self.sent += 1
        made()
        path, channel = f"/{method.containing_service.full_name}/{method.name}", cast(Any, self.channel)
        seconds = LISTENS if method.name in WAITS else PATIENCE
        try:
            if method.client_streaming:
                self._take(channel.stream_stream(path)(iter(requests), timeout=seconds))
            else:
                self._take(channel.unary_stream(path)(requests[0], timeout=seconds))
            self.statuses["OK"] += 1
        except grpc.RpcError as error:
            self._note(path, error, requests)

    def _take(self, replies: Any) -> None:
        for _, _reply in zip(range(3), replies, strict=False):
            pass
        replies.cancel()

    def _note(self, path: str, error: grpc.RpcError, requests: list[bytes]) -> None:
        code, details = error.code(), error.details() or ""
        waits = path.rpartition("/")[2] in WAITS
        self.statuses[code.name] += 1
        if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE) or "Traceback" in details:
            self.violations.append(f"{path}: {code.name}: {details[:200]} for {requests!r:.500}")
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not waits:
            self.violations.append(f"{path}: no answer for {requests!r:.500}")

    def raw(self, data: bytes, greeting: bool) -> None:
        """Bytes on the port, after HTTP/2's greeting or without."""
        self.sent += 1
        made()
        host, port = self.broker.address.rsplit(":", 1)
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            if greeting:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            connection.sendall(data)

    # --- what has to hold -----------------------------------------------------------------------------

    def honest(self) -> None:
        """Somebody who does nothing wrong is served."""
        instance, origin = os.urandom(16), os.urandom(12)
        function = pb.Function(name="honest", hash="h", queue=f"honest {origin.hex()}")
        nodes = pb.Nodes(
            instance=instance,
            origin=origin,
            function=[0],
            arguments=[b"\1\0a"],
            creates=pb.NewInstance(definition="work:Task", entry=origin + bytes(4)),
        )
        stub = BrokerStub(self.channel)
        try:
            parts = pb.SubmitRequest(functions=[function], nodes=[nodes]), pb.SubmitRequest()
            stub.SubmitStream(iter(parts), timeout=PATIENCE)
            hello = pb.Hello(protocol=1, worker=os.urandom(16), name="honest", slots=1, include_queues=[function.queue])
            self._work(stub, hello)
            [reply] = stub.Wait(pb.WaitRequest(instance=instance, node=[origin + bytes(4)]), timeout=PATIENCE)
            assert list(reply.value) == [b"\1\0b"], reply
        except (grpc.RpcError, AssertionError, ValueError) as error:
            self.violations.append(f"an honest caller is not served: {error!r}"[:400])

    def _work(self, stub: BrokerStub, hello: pb.Hello) -> None:
        says: SimpleQueue[pb.WorkerMessage | None] = SimpleQueue()
        says.put(pb.WorkerMessage(hello=hello))
        work = stub.Work(iter(says.get, None), timeout=PATIENCE)
        try:
            for message in work:
                for grant in message.grants:
                    results = pb.Results(node=grant.node, attempt=grant.attempt, value=[b"\1\0b"], microseconds=[1])
                    says.put(pb.WorkerMessage(reports=[pb.Report(sequence=1, body=results.SerializeToString())]))
                if message.acknowledged:
                    work.cancel()
                    return
        finally:
            says.put(None)

    def check(self) -> None:
        self.honest()
        grown = self._memory() - self.memory
        if grown > GROWTH:
            self.violations.append(f"the broker has grown by {grown >> 20} MiB")


def examples(count: int, seed: int) -> Callable[[Any], Any]:
    def decorate(test: Any) -> Any:
        rules = settings(
            max_examples=count, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        return seeded(seed)(rules(test))

    return decorate


def frames(chance: random.Random) -> bytes:
    """HTTP/2 frames with anything in them."""
    data = b""
    for _ in range(chance.randint(1, 6)):
        body = chance.randbytes(chance.choice((0, 4, 8, 30, 300)))
        size = len(body) if chance.random() < 0.8 else chance.randrange(1 << 24)
        data += struct.pack(">I", size)[1:] + bytes([chance.randrange(12), chance.randrange(256)])
        data += struct.pack(">I", chance.choice((0, 1, 3, 5, 1 << 31))) + body
    return data


def prove(count: int, seed: int) -> Fuzzer:
    """`count` messages with wrong contents and as many with one thing wrong, half as many calls with raw bytes in them,
    and half as many with raw bytes on the port."""
    chance = random.Random(seed)
    with launch_broker(port=0, store="memory://") as broker:
        fuzzer = Fuzzer(broker)

        @examples(count, seed)
        @given(data=st.data())
        def well_formed(data: Any) -> None:
            method = data.draw(st.sampled_from(METHODS))
            messages = data.draw(st.lists(contents(method.input_type), min_size=1, max_size=4))
            if method.name == "Work" and data.draw(st.integers(0, 3)):
                hello = pb.Hello(protocol=1, **WORKER, name="fuzz", slots=2, tolerations=["GPU"])
                messages.insert(0, pb.WorkerMessage(hello=hello))
            fuzzer.call(method, [message.SerializeToString() for message in messages])

        @examples(count // 2, seed)
        @given(method=st.sampled_from(METHODS), requests=st.lists(st.binary(max_size=200), min_size=1, max_size=3))
        def raw_in_calls(method: Any, requests: list[bytes]) -> None:
            fuzzer.call(method, requests)

        @examples(count, seed)
        @given(call=nearly_right())
        def with_one_thing_wrong(call: Any) -> None:
            name, messages = call
            method = SERVICES[0].methods_by_name[name]
            # Each has IDs of its own: the first that is taken in must not be all that is looked at.
            own = fuzzer.sent.to_bytes(12, "big")
            data = [message.SerializeToString() for message in messages]
            fuzzer.call(method, [each.replace(INSTANCE, b"i" * 4 + own).replace(ORIGIN, own) for each in data])

        well_formed()
        fuzzer.check()
        with_one_thing_wrong()
        fuzzer.check()
        raw_in_calls()
        fuzzer.check()
        for number in range(count // 2):
            data = frames(chance) if number % 2 else chance.randbytes(chance.choice((1, 30, 3_000)))
            fuzzer.raw(data, greeting=bool(number % 3))
        fuzzer.check()
    return fuzzer


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.fuzz", description="Anything over the wire.")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fuzzer = prove(options.examples, options.seed)
    answers = ", ".join(f"{count} {name}" for name, count in fuzzer.statuses.most_common())
    print(f"{fuzzer.sent} messages: {answers}; {len(fuzzer.violations)} violations")
    for violation in fuzzer.violations[:10]:
        print(f"VIOLATION {violation}")
    return int(bool(fuzzer.violations))


if __name__ == "__main__":
    sys.exit(main())
