"""The limit of open files: raised as far as it may be, and never used up by connections."""

import os
import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from dagorama.api.broker_pb2 import GetStatusRequest, ValueChunk
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker.errors import StoreError
from dagorama_broker.store.descriptors import LEAST, RESERVED, connections_within_limits
from dagorama_broker.store.sqlite.connection import translate_sqlite_errors
from tests.support.processes import SECONDS


def limits_after(soft: int, hard: int, wanted: int) -> tuple[int, int]:
    """What fits, and the soft limit then, of a process that starts with these limits."""
    code = (
        "import resource, sys; from dagorama_broker.store.descriptors import connections_within_limits as fit;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f"print(fit({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fit, left = done.stdout.split()
    return int(fit), int(left)


def test_the_soft_limit_is_raised_as_far_as_needed() -> None:
    assert limits_after(256, 4096, 1000) == (1000, 1000 + RESERVED)
    assert limits_after(2048, 4096, 1000) == (1000, 2048)


def test_below_a_hard_limit_fewer_connections_fit() -> None:
    assert limits_after(256, 1024, 10_000) == (1024 - RESERVED, 1024)
    assert limits_after(64, 64, 10_000) == (32, 64)


def test_fewer_connections_than_asked_for_are_said(caplog: pytest.LogCaptureFixture) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert connections_within_limits(hard) == hard - RESERVED
    assert f"at most {hard - RESERVED} connections at once, not {hard}: this process may have" in caplog.text


def test_a_broker_that_may_open_too_few_files_ends_with_a_sentence(tmp_path: Path) -> None:
    command = f"ulimit -n 16; exec {sys.executable} -m dagorama_broker serve --port 0 --store sqlite:///{tmp_path}/s"
    broker = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=SECONDS)
    said = f"dagorama-broker: this process may have 16 open files, and a broker needs {LEAST}, and one for each"
    assert (broker.returncode, broker.stderr[: len(said)]) == (78, said)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A path, in a process that gets no more descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    yield tmp_path / "store.db"
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_store_that_fails_for_want_of_descriptors_says_so(store: Path) -> None:
    for failing in (lambda: sqlite3.connect(store), lambda: os.open(store, os.O_CREAT)):
        with (
            pytest.raises(StoreError, match="no free file descriptor: raise its limit"),
            translate_sqlite_errors(store),
        ):
            failing()


@contextmanager
def limited_broker(folder: Path, limit: int, host: str) -> Iterator[int]:
    """A broker that may have so many open files; its port."""
    serve = f"{sys.executable} -m dagorama_broker serve --host {host} --port 0 --store sqlite:///{folder}/db"
    command = f"ulimit -n {limit}; exec {serve}"
    broker = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    try:
        assert broker.stderr is not None
        line = next(line for line in broker.stderr if "serving on" in line)
        yield int(line.partition("serving on ")[2].partition(",")[0].rpartition(":")[2])
    finally:
        broker.terminate()
        broker.communicate(timeout=SECONDS)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_silent_strangers_do_not_keep_others_out(tmp_path: Path, host: str) -> None:
    settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with limited_broker(tmp_path, 300, host) as port, ExitStack() as channels:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        stub = BrokerStub(channels.enter_context(grpc.insecure_channel(address)))
        stub.GetStatus(GetStatusRequest(), timeout=SECONDS)
        strangers = [socket.create_connection((host, port)) for _ in range(400)]
        for stranger in strangers:
            stranger.sendall(settings)
        stub.PutValue(iter([ValueChunk(data=b"value")]), timeout=SECONDS)
        # A new caller is let in as soon as those who made no call are closed.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(address, options) as fresh:
            BrokerStub(fresh).GetStatus(GetStatusRequest(), timeout=SECONDS, wait_for_ready=True)
        stub.GetStatus(GetStatusRequest(), timeout=SECONDS)
        for stranger in strangers:
            stranger.close()
