"""The readers of what strangers send, each as a function of bytes: it returns, or raises what it is to raise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from dagorama.api import broker_pb2 as pb
from dagorama.errors import DagoramaError
from dagorama.values.envelope import large_values, references
from dagorama.values.signing import RESULT, keyring
from dagorama.worker.frames import FrameReader
from dagorama_broker.errors import BrokerRefusal
from dagorama_broker.rpc.messages import blocks_of
from dagorama_broker.rpc.reports import large_by_place, refs_of
from dagorama_broker.rpc.work import worker_info_of
from dagorama_broker.scheduler import Scheduler

NODE, INSTANCE = b"n" * 16, b"i" * 16


def envelopes(data: bytes) -> None:
    """Unsigned bytes never come through; and what is inside a signature may be anything."""
    try:
        keyring().open(data, RESULT, NODE)
    except DagoramaError:
        pass
    else:
        raise AssertionError("an envelope came through that nobody has signed")
    for read in (references, large_values):
        with suppress(DagoramaError):
            read(data)


def frames(data: bytes) -> None:
    """Cut anywhere, they come out as they do in one piece."""
    whole, pieces = FrameReader(), FrameReader()
    try:
        expected = whole.feed(data)
    except ValueError:
        return  # a kind of frame that there is not
    found = [frame for at in range(0, len(data), 7) for frame in pieces.feed(data[at : at + 7])]
    assert found == expected


def calls(data: bytes) -> None:
    """Whatever protobuf takes is taken or refused, and what is refused has changed nothing."""
    scheduler = Scheduler(1)
    readers: tuple[tuple[Any, Callable[[Any], object]], ...] = (
        (pb.SubmitRequest, lambda read: scheduler.submit(blocks_of([read]), {})),
        (pb.Hello, worker_info_of),
        (pb.Results, lambda read: (refs_of(read), large_by_place(read))),
    )
    for message, take in readers:
        try:
            take(message.FromString(data))
        except (DecodeError, BrokerRefusal):
            assert not scheduler.graph.nodes
