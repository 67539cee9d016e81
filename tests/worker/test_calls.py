"""The `Work` call of a supervisor on the broker's machine: on the broker's Unix socket, or else over gRPC."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.client.channel import aio_channel
from dagorama.settings import Settings
from dagorama.worker.supervisor import calls
from dagorama.worker.supervisor.calls import MIN_SEND_INTERVAL_S, LocalCall, OpenedCall, WorkCalls
from tests.support.raw import PATIENCE, Served, identity, serving
from tests.support.tokens import Tokens


@asynccontextmanager
async def opened(served: Served, host: str = "127.0.0.1", token: str = "") -> AsyncIterator[OpenedCall]:
    settings = Settings(host, served.port, auth_token=token)
    channel = aio_channel(settings)
    try:
        from dagorama.api.broker_pb2_grpc import BrokerStub

        found = await WorkCalls(BrokerStub(channel), settings).open()
        yield found
        found.call.cancel()
    finally:
        await channel.close()


def hello() -> pb.WorkerMessage:
    own = identity()
    said = pb.Hello(protocol=1, name="raw", slots=1, worker=own["worker"], secret=own["secret"])
    return pb.WorkerMessage(hello=said)


async def welcomed(found: OpenedCall) -> pb.Welcome:
    await found.call.write(hello())
    async with asyncio.timeout(PATIENCE):
        return (await anext(aiter(found.call))).welcome


async def error_of(found: OpenedCall) -> grpc.aio.AioRpcError:
    """How the broker ends the call, before it has sent anything more."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asyncio.wait_for(anext(aiter(found.call)), PATIENCE)
    return error.value


async def test_a_worker_of_the_same_user_uses_the_socket_and_gathers_nothing() -> None:
    async with serving() as served, opened(served) as found:
        assert (await welcomed(found)).epoch == 1
        assert isinstance(found.call, LocalCall)
        assert found.interval == 0


@pytest.mark.parametrize("of", ["worker", "broker"])
async def test_the_setting_turns_it_off(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if of == "worker":
        monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", "0")
    async with serving(local_socket=of != "broker") as served, opened(served) as found:
        assert (await welcomed(found)).epoch == 1
        assert not isinstance(found.call, LocalCall)
        assert found.interval == MIN_SEND_INTERVAL_S


async def test_a_socket_that_cannot_be_used_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "DEBUG")
    async with serving() as served:
        path = (await served.stub.GetSharedFolder(pb.GetSharedFolderRequest())).socket.path
        os.unlink(path)
        async with opened(served) as found:
            assert (await welcomed(found)).epoch == 1
            assert not isinstance(found.call, LocalCall)
    (record,) = (each for each in caplog.records if "local socket" in each.message)
    assert (record.levelno, record.message.endswith("Work goes over gRPC")) == (logging.DEBUG, True)


async def test_a_broker_that_ends_the_call_says_why() -> None:
    async with serving() as served, opened(served) as found:
        await welcomed(found)
        await found.call.write(hello())
        error = await error_of(found)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "a worker says hello once, in its first message"
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await found.call.write(hello())
        assert late.value is error


async def test_a_token_is_refused_as_over_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.toml")
    token = tokens.add("client", "client")
    async with serving(tokens=str(tokens.path)) as served:
        errors = []
        for on in ("1", "0"):
            monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", on)
            async with opened(served, token=token) as found:
                assert isinstance(found.call, LocalCall) is (on == "1")
                error = await error_of(found)
                errors.append((error.code(), error.details()))
        assert errors[0] == errors[1]
        assert errors[0][0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_worker_that_sends_no_more_is_let_go() -> None:
    async with serving() as served, opened(served) as found:
        await welcomed(found)
        await found.call.done_writing()
        async with asyncio.timeout(PATIENCE):
            assert [message async for message in found.call] == []
        await served.until(lambda broker: not broker.sessions)


async def test_a_call_that_is_cancelled_is_over_on_both_sides() -> None:
    async with serving() as served, opened(served) as found:
        await welcomed(found)
        assert served.broker.sessions
        found.call.cancel()
        assert (await error_of(found)).code() is grpc.StatusCode.UNAVAILABLE
        await served.until(lambda broker: not broker.sessions)


async def test_a_silent_broker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts the hello and then says nothing stands for a broker that is stopped."""
    for name, seconds in {"BROKER_SILENCE": 0.2, "PING_EVERY": 0.05}.items():
        monkeypatch.setattr(calls, name, seconds)
    call = LocalCall()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport  # which would be closed if nothing referred to it

    loop, path = asyncio.get_running_loop(), f"/tmp/dagorama-test-{os.urandom(8).hex()}"
    server = await loop.create_unix_server(Silent, path)
    try:
        await loop.create_unix_connection(lambda: call, path)
        assert call.begins(b"")
        call.data_received(bytes([2, 0, 0, 0, 0]))
        assert await call.accepted()
        error = await error_of(OpenedCall(call, 0))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "the connection to the local socket has ended: the broker was silent for 0.2 seconds",
        )
    finally:
        server.close()
        Path(path).unlink(missing_ok=True)  # Python 3.13 has removed it
