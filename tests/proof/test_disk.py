"""A broker process whose disk lets it down: it says why and leaves, and what it acknowledged is there afterwards."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import begun

from .progress import patience

SECONDS = patience(30)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(store: Path) -> Iterator[tuple[subprocess.Popen[str], BrokerStub]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagorama_broker", "serve", "--port", str(port)],
        env={**os.environ, "DAGORAMA_STORE": f"sqlite:///{store}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(SECONDS)
            yield process, BrokerStub(channel)
    finally:
        process.kill()
        process.communicate()


def submit(stub: BrokerStub, size: int) -> bytes:
    """The ID of an instance that was acknowledged."""
    instance, origin = os.urandom(16), os.urandom(12)
    nodes = pb.Nodes(
        instance=instance, origin=origin, function=[0], arguments=[b"\1\0" + os.urandom(size)],
        creates=pb.NewInstance(definition="work:Task", entry=origin + bytes(4)),
    )  # fmt: skip
    function = pb.Function(name="work", hash="h")
    parts = pb.SubmitRequest(functions=[function], nodes=[nodes]), pb.SubmitRequest()
    stub.SubmitStream(iter(parts), timeout=SECONDS)
    return instance


def submit_until_refused(stub: BrokerStub, size: int) -> list[bytes]:
    acknowledged: list[bytes] = []
    with suppress(grpc.RpcError):
        while len(acknowledged) < 10_000:
            acknowledged.append(submit(stub, size))
    return acknowledged


def are_there(path: Path, instances: list[bytes]) -> bool:
    store = SqliteStore(path)
    begun(store)
    try:
        return all(store.has_instance(instance) for instance in instances)
    finally:
        store.close()


def test_a_full_disk_ends_the_broker_with_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    with broker(path) as (process, stub):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
        acknowledged = submit_until_refused(stub, size=50_000)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode not in (0, -9)
        assert str(path) in errors
        assert "Traceback" not in errors
    assert 5 < len(acknowledged) < 10_000
    assert are_there(path, acknowledged)


def test_a_store_that_another_program_locks_ends_the_broker_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with broker(path) as (process, stub):
        acknowledged = [submit(stub, 100)]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(grpc.RpcError):
                submit(stub, 100)
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode not in (0, -9)
        assert "locked by another program" in errors
        assert "Traceback" not in errors
    assert are_there(path, acknowledged)
