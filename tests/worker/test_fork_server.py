"""The fork server forks children, says how they ended, and leaves none behind. Real processes, no timing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from select import select

import pytest

from dagorama.worker.frames import ChildMain
from dagorama.worker.supervisor.fork_server import Ended, Event, ForkServer, Started


def echo(slot: int, connection: socket.socket) -> int:
    """Answers until the other end closes, then leaves with its slot as exit code."""
    while data := connection.recv(64):
        connection.sendall(data)
    return slot


def sleeper(_slot: int, connection: socket.socket) -> int:
    """Starts a program of its own and waits for it."""
    program = subprocess.Popen(["sleep", "1000"])
    connection.sendall(str(program.pid).encode())
    return program.wait()


def start(child_main: ChildMain) -> ForkServer:
    return ForkServer.start(lambda: child_main)


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    made = start(echo)
    yield made
    made.close()


def started(event: Event | None) -> Started:
    assert isinstance(event, Started)
    return event


def ended(event: Event | None) -> Ended:
    assert isinstance(event, Ended)
    return event


def wait_until_gone(descriptor: int) -> None:
    """`descriptor` reads from a pipe whose other end only the processes in question hold; it is closed here."""
    assert os.read(descriptor, 1) == b""
    os.close(descriptor)


def test_a_child_talks_over_its_own_socket_and_its_exit_code_is_told(fork_server: ForkServer) -> None:
    fork_server.fork(7)
    child = started(fork_server.read())
    child.socket.sendall(b"hello")
    assert child.socket.recv(64) == b"hello"
    child.socket.close()
    end = ended(fork_server.read())
    assert (end.slot, end.pid) == (7, child.pid)
    assert os.waitstatus_to_exitcode(end.status) == 7
    assert end.peak > 1 << 20


def test_a_killed_child_is_told_with_its_signal(fork_server: ForkServer) -> None:
    fork_server.fork(0)
    child = started(fork_server.read())
    with child.socket:
        fork_server.kill(child.pid)
        assert os.waitstatus_to_exitcode(ended(fork_server.read()).status) == -signal.SIGKILL


def test_children_have_nothing_of_each_other(fork_server: ForkServer) -> None:
    """A child that held another's socket would keep it from seeing its end."""
    children = []
    for slot in range(3):
        fork_server.fork(slot)
        children.append(started(fork_server.read()))
    for child in children:
        child.socket.close()
        assert ended(fork_server.read()).slot == child.slot


def test_a_child_takes_what_it_started_with_it() -> None:
    fork_server = start(sleeper)
    fork_server.fork(0)
    child = started(fork_server.read())
    with child.socket:
        descriptor = os.pidfd_open(int(child.socket.recv(64)))
    fork_server.kill(child.pid)
    ended(fork_server.read())
    assert select([descriptor], [], [])[0]  # readable once the program has ended
    os.close(descriptor)
    fork_server.close()


def test_nothing_is_left_when_the_supervisor_goes() -> None:
    reading, writing = os.pipe()
    fork_server = start(sleeper)
    fork_server.fork(0)
    with started(fork_server.read()).socket as connection:
        connection.recv(64)
        os.close(writing)
        fork_server.close()
    wait_until_gone(reading)


def test_children_die_with_a_fork_server_that_is_killed() -> None:
    reading, writing = os.pipe()
    fork_server = start(echo)
    fork_server.fork(0)
    child = started(fork_server.read())
    os.close(writing)
    os.kill(fork_server.pid, signal.SIGKILL)
    assert fork_server.read() is None
    with child.socket:
        assert child.socket.recv(1) == b""
    fork_server.close()
    wait_until_gone(reading)


def test_a_child_that_raises_says_so_and_ends_with_1() -> None:
    script = """
import os
from dagorama.worker.frames import ChildMain
from dagorama.worker.supervisor.fork_server import ForkServer
def child(slot, connection):
    raise RuntimeError("no luck")
fork_server = ForkServer.start(lambda: child)
fork_server.fork(0)
fork_server.read()
print(os.waitstatus_to_exitcode(fork_server.read().status))
fork_server.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert "RuntimeError: no luck" in done.stderr
