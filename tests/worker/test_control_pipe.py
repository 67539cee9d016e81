"""The line between a process that launches workers and their supervisor."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dagorama.worker.control_pipe import ControlPipe, Message

Pair = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Pairs of sockets, closed at the end."""
    with ExitStack() as opened:

        def made() -> tuple[socket.socket, socket.socket]:
            one, other = socket.socketpair()
            return opened.enter_context(one), opened.enter_context(other)

        yield made


@pytest.fixture
def both(pair: Pair) -> tuple[ControlPipe, ControlPipe]:
    one, other = pair()
    return ControlPipe(one), ControlPipe(other)


def test_words_and_a_payload_arrive_as_they_were_said(both: tuple[ControlPipe, ControlPipe]) -> None:
    here, there = both
    here.say("started", 3, 1234)
    here.say("failed", "a sentence: of words,\nof two lines", payload=b"\0bytes\n")
    assert there.read() == [
        Message(["started", "3", "1234"]),
        Message(["failed", "a sentence: of words,\nof two lines"], b"\0bytes\n"),
    ]


def test_a_message_that_comes_in_pieces_is_read_once_it_is_whole(pair: Pair) -> None:
    sender, raw = pair()
    here = ControlPipe(sender)
    here.say("define", payload=b"x" * 50)
    data = raw.recv(1 << 16)
    ours, piecewise = pair()
    lines = ControlPipe(ours)
    for byte in range(len(data) - 1):
        piecewise.sendall(data[byte : byte + 1])
        assert lines.read() == []
    piecewise.sendall(data[-1:])
    assert lines.read() == [Message(["define"], b"x" * 50)]


def test_a_payload_of_megabytes_goes_through(both: tuple[ControlPipe, ControlPipe]) -> None:
    here, there = both
    payload = bytes(range(256)) * (8 << 10)
    sending = threading.Thread(target=lambda: here.say("define", "name", payload=payload))
    sending.start()
    found: list[Message] = []
    while not found:
        found += there.read() or []
    sending.join()
    assert found == [Message(["define", "name"], payload)]


def test_what_is_said_to_an_end_that_is_closed_is_lost(both: tuple[ControlPipe, ControlPipe]) -> None:
    here, there = both
    there.close()
    here.say("stop")
    assert here.read() is None
