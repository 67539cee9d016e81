"""The Unix socket of a broker: who may connect, what is refused, and what a broker leaves behind."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.api.contract import MESSAGE_LIMIT, Role
from dagorama_broker.rpc import local_call, local_server
from tests.support.certificates import Authority
from tests.support.limits import no_free_descriptor
from tests.support.local_calls import END, MESSAGE, PING, Frames, LocalStub, frame, socket_of
from tests.support.raw import PATIENCE, Dag, Served, refused, serving
from tests.support.tokens import Tokens

#: A user that owns nothing here.
STRANGER = 65534
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
TOO_MUCH, AWAY = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


@asynccontextmanager
async def connected(path: str) -> AsyncIterator[Frames]:
    frames = await Frames.of(path)
    try:
        yield frames
    finally:
        frames.writer.transport.abort()


def hello(found: pb.LocalSocket, **changed: Any) -> bytes:
    said: dict[str, Any] = {"protocol": 1, "call": "Exchange", "nonce": found.nonce, **changed}
    return frame(pb.LocalHello(**said).SerializeToString())


async def refusal(frames: Frames) -> tuple[grpc.StatusCode, str]:
    """The status and the message with which the broker ends the call."""
    kind, body = await frames.read()
    assert kind == END
    found = pb.Refusal.FromString(body)
    return next(code for code in grpc.StatusCode if code.value[0] == found.status), found.message


async def is_closed(frames: Frames) -> bool:
    """Whether the broker closes the connection without a frame."""
    try:
        await frames.read(pings=True)
    except (EOFError, ConnectionError):
        return True
    return False


def as_stranger(attempt: Callable[[], str]) -> str:
    """Return what a process of another user finds; call this in a thread."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.write(theirs, attempt().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as found:
        text = found.read()
    os.waitpid(child, 0)
    return text


def connecting(path: str) -> str:
    """Connect to the socket, send some bytes, and return how that ends."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(path)
        except PermissionError:
            return "no way in"
        try:
            client.sendall(b"\0" * 5)
            return "closed" if not client.recv(5) else "answered"
        except ConnectionError:
            return "closed"


# --- who may connect ----------------------------------------------------------------------------------


async def test_only_this_user_can_enter_the_folder(served: Served) -> None:
    folder = Path((await socket_of(served.stub)).path).parent
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (os.geteuid(), 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_cannot_connect(served: Served) -> None:
    path = (await socket_of(served.stub)).path
    assert await asyncio.to_thread(as_stranger, lambda: connecting(path)) == "no way in"
    # Not even if someone opens the folder.
    Path(path).parent.chmod(0o755)
    Path(path).chmod(0o777)
    assert await asyncio.to_thread(as_stranger, lambda: connecting(path)) == "closed"
    assert await asyncio.to_thread(connecting, path) == "closed"  # an empty hello, of this user


@pytest.mark.parametrize(
    "wrong", [{"nonce": "another broker's"}, {"nonce": ""}, {"protocol": 2}, {"call": "Retry"}, {"call": ""}]
)
async def test_a_hello_that_is_not_for_this_broker_is_not_answered(served: Served, wrong: dict[str, Any]) -> None:
    found = await socket_of(served.stub)
    async with connected(found.path) as frames:
        frames.writer.write(hello(found, **wrong))
        assert await is_closed(frames)


async def test_bytes_that_are_no_hello_are_not_answered(served: Served) -> None:
    found = await socket_of(served.stub)
    for data in (frame(b"\xff\xff\xff"), frame(b"", 77) + frame(b"GET /"), frame()):
        async with connected(found.path) as frames:
            frames.writer.write(data)
            assert await is_closed(frames)


async def test_an_accepted_hello_is_answered_with_a_ping(served: Served) -> None:
    found = await socket_of(served.stub)
    async with connected(found.path) as frames:
        frames.writer.write(hello(found))
        assert await frames.read(pings=True) == (PING, b"")


# --- tokens -------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in Role:
        tokens.add(role, role)
    tokens.add("old", "client", expires=datetime.now(UTC) - timedelta(days=1))
    return tokens


@asynccontextmanager
async def guarded(tokens: Tokens) -> AsyncIterator[tuple[Served, pb.LocalSocket]]:
    async with serving(tokens=str(tokens.path)) as served:
        header = (("authorization", f"Bearer {tokens['admin']}"),)
        yield served, await socket_of(BrokerStub(served.channel), metadata=header)


@pytest.mark.parametrize(
    ("token", "call", "status", "text"),
    [
        (None, "Exchange", UNKNOWN, "this broker requires a token: set DAGORAMA_AUTH_TOKEN"),
        ("dgt_unheard-of", "Exchange", UNKNOWN, "unknown token: it was issued for another broker, or revoked"),
        ("old", "Exchange", UNKNOWN, "the token 'old' has expired"),
        ("reader", "Exchange", DENIED, "the role reader, which may not call dagorama.v1.Broker/Exchange"),
        ("client", "Work", DENIED, "the role client, which may not call dagorama.v1.Broker/Work"),
    ],
)
async def test_a_token_that_does_not_allow_the_call_is_refused_as_over_grpc(
    tokens: Tokens, token: str | None, call: str, status: grpc.StatusCode, text: str
) -> None:
    known = ("old", *Role)
    authorization = "" if token is None else f"Bearer {tokens[token] if token in known else token}"
    async with guarded(tokens) as (served, found), connected(found.path) as frames:
        frames.writer.write(hello(found, call=call, authorization=authorization))
        local = await refusal(frames)
        header = (("authorization", authorization),) if authorization else ()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await getattr(served.stub, call)(metadata=header).read()
    assert local == (error.value.code(), error.value.details())
    assert local[0] is status
    assert text in local[1]


async def test_a_call_ends_with_its_token(tokens: Tokens) -> None:
    async with guarded(tokens) as (_, found), connected(found.path) as frames:
        frames.writer.write(hello(found, authorization=f"Bearer {tokens['client']}"))
        assert await frames.read(pings=True) == (PING, b"")
        tokens.take_away("client")
        assert await refusal(frames) == (AWAY, "the token 'client' has expired or was changed: call again")


# --- limits -------------------------------------------------------------------------------------------


async def test_a_frame_that_is_too_long_is_refused_by_its_header(served: Served) -> None:
    found = await socket_of(served.stub)
    async with connected(found.path) as frames:
        frames.writer.write(hello(found) + struct.pack(">BI", MESSAGE, MESSAGE_LIMIT + 1))
        text = f"received message larger than max ({MESSAGE_LIMIT + 1} vs. {MESSAGE_LIMIT})"
        assert await refusal(frames) == (TOO_MUCH, text)
    async with connected(found.path) as frames:
        frames.writer.write(struct.pack(">BI", MESSAGE, 0xFFFFFFFF))
        assert (await refusal(frames))[0] is TOO_MUCH


async def test_the_largest_message_passes_in_pieces(served: Served) -> None:
    found, dag = await socket_of(served.stub), Dag()
    body = pb.Requests(request=[pb.Request(number=1, submit=dag.submission(*[bytes(190_000)] * 22))])
    data = frame(body.SerializeToString())
    assert MESSAGE_LIMIT - 20_000 < len(data) < MESSAGE_LIMIT
    async with connected(found.path) as frames:
        frames.writer.write(hello(found))
        for at in range(0, len(data), 65_537):
            frames.writer.write(data[at : at + 65_537])
            await frames.writer.drain()
        kind, answer = await frames.read()
        (response,) = pb.Responses.FromString(answer).response
        assert (kind, response.done, response.refusal.message) == (MESSAGE, True, "")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker looks at its connections all the time."""
    monkeypatch.setattr(local_server, "PING_EVERY", 0.02)


@pytest.mark.usefixtures("often")
async def test_a_message_that_is_not_completed_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_call, "PARTIAL", 0.05)
    async with serving() as served, connected((found := await socket_of(served.stub)).path) as frames:
        frames.writer.write(hello(found) + struct.pack(">BI", MESSAGE, 100) + b"half")
        assert await refusal(frames) == (AWAY, "a message was not complete within 0.05 seconds")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack(">BI", MESSAGE, 50) + b"half a hello"])
async def test_a_connection_without_a_hello_is_closed(sent: bytes) -> None:
    async with serving(handshake_timeout=0.05) as served, connected((await socket_of(served.stub)).path) as frames:
        frames.writer.write(sent)
        assert await is_closed(frames)


@pytest.mark.usefixtures("often")
async def test_a_silent_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_call, "SILENCE", 0.2)
    async with serving() as served, connected((found := await socket_of(served.stub)).path) as frames:
        frames.writer.write(hello(found))
        assert await frames.read(pings=True) == (PING, b"")
        with pytest.raises((EOFError, ConnectionError)):
            await frames.read()


@pytest.mark.usefixtures("often")
async def test_a_client_that_pings_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_call, "SILENCE", 0.2)
    async with serving() as served, connected((found := await socket_of(served.stub)).path) as frames:
        frames.writer.write(hello(found))
        for _ in range(20):  # one ping of the broker each, which together take twice as long
            frames.writer.write(frame(kind=PING))
            assert await frames.read(pings=True) == (PING, b"")
        frames.writer.write(frame(kind=END))
        assert await frames.read() == (END, b"")


async def test_a_message_that_cannot_be_read_is_refused(served: Served) -> None:
    found = await socket_of(served.stub)
    async with connected(found.path) as frames:
        frames.writer.write(hello(found) + frame(b"\xff\xff\xff"))
        status, text = await refusal(frames)
        assert (status, text) == (
            grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read as a message of this call"
        )  # fmt: skip


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with serving(max_connections=2 * local_server.PART) as served:
        found = await socket_of(served.stub)
        async with connected(found.path) as first, connected(found.path) as second:
            for frames in (first, second):
                frames.writer.write(hello(found))
                assert await frames.read(pings=True) == (PING, b"")
            async with connected(found.path) as third:
                assert await is_closed(third)
        async with asyncio.timeout(PATIENCE):
            while True:  # until the broker has noticed that they have gone
                async with connected(found.path) as again:
                    again.writer.write(hello(found))
                    if not await is_closed(again):
                        break


async def test_connections_wait_for_a_free_descriptor_and_one_sentence_says_so(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    found = await socket_of(served.stub)
    with socket.socket(socket.AF_UNIX) as client, no_free_descriptor():
        client.connect(found.path)
        async with asyncio.timeout(PATIENCE):
            while not caplog.records:
                await asyncio.sleep(0.01)
    [said] = {record.getMessage() for record in caplog.records}
    assert "wait, because this process cannot accept them: Too many open files: raise its limit" in said
    assert len(caplog.records) == 1
    async with connected(found.path) as frames:
        frames.writer.write(hello(found))
        assert await frames.read(pings=True) == (PING, b"")


async def test_more_than_the_buffers_hold_passes_in_both_directions(served: Served) -> None:
    """Reading pauses while requests wait for the broker, and writing while the client reads nothing."""
    found, dags = await socket_of(served.stub), [Dag() for _ in range(12)]
    asks = [pb.Request(number=place, submit=dag.submission(bytes(150_000))) for place, dag in enumerate(dags, 1)]
    async with connected(found.path) as frames:
        frames.writer.write(hello(found))
        await frames.read(pings=True)
        for ask in asks:
            frames.writer.write(frame(pb.Requests(request=[ask]).SerializeToString()))
        worker = await served.worker(slots=12)
        for node in await worker.nodes(12):
            await worker.complete(node, value=bytes(200_000))
        for place, dag in enumerate(dags, 101):
            wait = pb.WaitRequest(instance=dag.instance, node=[dag.id(0)])
            frames.writer.write(frame(pb.Requests(request=[pb.Request(number=place, wait=wait)]).SerializeToString()))
        done: dict[int, int] = {}
        while sum(number > 100 for number in done) < len(dags):
            _, body = await frames.read()
            for answer in pb.Responses.FromString(body).response:
                done[answer.number] = done.get(answer.number, 0) + sum(map(len, answer.wait.value))
    assert done == {**dict.fromkeys(range(1, 13), 0), **dict.fromkeys(range(101, 113), 200_002)}


# --- the socket ---------------------------------------------------------------------------------------


async def test_a_broker_that_leaves_removes_its_socket_and_ends_the_calls() -> None:
    async with serving() as served:
        found = await socket_of(served.stub)
        async with connected(found.path) as frames:
            frames.writer.write(hello(found))
            await frames.read(pings=True)
            served.stop()
            assert await refusal(frames) == (AWAY, "the broker is shutting down; try again when it is back")
    assert not Path(found.path).parent.exists()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets; that of pytest may be too long for their names."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


async def test_what_a_killed_broker_has_left_is_removed_by_the_next_one(runtime: Path) -> None:
    left = runtime / f"{local_server.FOLDER}dead"
    left.mkdir(0o700)
    (left / local_server.LOCK).touch()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left / local_server.SOCKET))
    async with serving() as one, serving() as other:
        folders = {Path((await socket_of(each.stub)).path).parent for each in (one, other)}
        assert folders == set(runtime.iterdir())
        assert len(folders) == 2


async def test_a_folder_of_sockets_that_others_can_enter_is_not_used(runtime: Path) -> None:
    runtime.chmod(0o755)
    async with serving() as served:
        assert Path((await socket_of(served.stub)).path).parent.parent != runtime


async def test_a_path_that_is_too_long_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / ("x" * 108)
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    async with serving() as served:
        assert Path((await socket_of(served.stub)).path).parent.parent != runtime
    assert not list(runtime.iterdir())


async def test_no_socket_is_made_where_the_setting_says_so() -> None:
    async with serving(local_socket=False) as served:
        assert await socket_of(served.stub) == pb.LocalSocket()


async def test_a_broker_that_identifies_clients_by_certificates_has_no_socket(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.pair("localhost")
    async with serving(tls_cert=cert, tls_key=key, tls_client_ca=str(authority.file)) as served:
        credentials = grpc.ssl_channel_credentials(
            authority.file.read_bytes(), Path(key).read_bytes(), Path(cert).read_bytes()
        )
        async with grpc.aio.secure_channel(f"localhost:{served.port}", credentials) as channel:
            assert await socket_of(BrokerStub(channel)) == pb.LocalSocket()


async def test_both_transports_share_the_limits_of_one_caller() -> None:
    """Otherwise a caller without a token would have two shares."""
    async with serving(max_streams=40) as served:
        local: Any = LocalStub(served.channel)
        taken: list[Any] = []
        with refused(TOO_MUCH, "remaining places are reserved for other callers"):
            for stub in (served.stub, local) * 20:
                talk: Any = stub.Exchange()
                taken.append(talk)
                await talk.write(pb.Requests(request=[pb.Request(number=1, submit=Dag().submission(b"a"))]))
                await talk.read()
        for talk in taken:
            talk.cancel()
