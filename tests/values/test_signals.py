"""A signal is read only as the value of a node that waits for one, by its signed arguments, and never unpickled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dagorama.api.contract import ENVELOPE_VERSION, SIGNAL
from dagorama.errors import TamperedValue, TypeMismatch, UnverifiedValue, ValueNotReadable
from dagorama.graph.waits import wait_of
from dagorama.values.assembly import assemble
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import SIGNAL_HEAD, flags, put_together, taken_apart
from dagorama.values.keys import SigningKey
from dagorama.values.signing import ARGUMENTS, RESULT, WAIT_DIGEST, Keyring, SignedValues, function_digest
from dagorama_broker.model import signals
from tests.support.bombs import Bomb


@dataclass
class Choice:
    yes: bool


RING = Keyring([SigningKey(b"a key".ljust(32))])
INSTANCE, NODE, OTHER = b"i" * 16, b"n" * 16, b"o" * 16


def waiting(annotation: Any = bool, node: bytes = NODE, default: tuple[Any] | None = None) -> bytes:
    """Return the signed arguments of a node that waits."""
    wait = wait_of("approval", annotation, None if default is None else 60.0, default)
    return RING.sign(wait.arguments().envelope, ARGUMENTS, INSTANCE, node, WAIT_DIGEST)


def read(envelope: bytes, node: bytes = NODE) -> object:
    return assemble([node], SignedValues(RING, {node: envelope}))[0]


def test_the_broker_and_the_library_begin_a_signal_alike() -> None:
    assert signals.SIGNAL_HEAD == SIGNAL_HEAD == bytes((ENVELOPE_VERSION, SIGNAL))
    assert flags(SIGNAL_HEAD) == SIGNAL


def test_a_signal_is_json_of_the_type_that_the_node_waits_for() -> None:
    assert read(put_together(waiting(), b"true")) is True
    assert read(put_together(waiting(list[int]), b"[1, 2]")) == [1, 2]
    assert read(put_together(waiting(default=(False,)), b"")) is False
    with pytest.raises(TypeMismatch, match="the signal 'approval'"):
        read(put_together(waiting(), b'"yes"'))
    with pytest.raises(TypeMismatch, match="the signal 'approval' is not JSON"):
        read(put_together(waiting(), b"\xff"))
    with pytest.raises(ValueNotReadable, match="it has none"):
        read(put_together(waiting(), b""))


def test_a_type_that_is_gone_is_told_with_the_wait_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = put_together(waiting(Choice), b'{"yes":true}')
    assert read(signal) == Choice(True)
    monkeypatch.delattr("tests.values.test_signals.Choice")
    with pytest.raises(
        ValueNotReadable, match=r"type that wait_for\('approval'\) has given to its signal .*Choice.*keep"
    ):
        read(signal)


def test_a_signal_cannot_take_the_place_of_another_value() -> None:
    signal = put_together(waiting(), b"true")
    with pytest.raises(TamperedValue, match="arguments of a wait for a signal"):
        read(signal, OTHER)
    # The arguments of a node that runs a function do not make it a node that waits.
    arguments = RING.sign(
        encode((("approval", bool, None), {})).envelope, ARGUMENTS, INSTANCE, NODE, function_digest("f", "h")
    )
    with pytest.raises(TamperedValue):
        read(put_together(arguments, b"true"))
    result = RING.sign(encode((("approval", bool, None), {})).envelope, RESULT, INSTANCE, NODE)
    with pytest.raises(TamperedValue):
        read(put_together(result, b"true"))


def test_nothing_in_a_signal_is_unpickled_before_it_is_verified(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "unpickled")
    with pytest.raises(UnverifiedValue):
        read(put_together(bomb.envelope, b"true"))
    with pytest.raises(TypeMismatch):
        read(put_together(waiting(), bomb.envelope[2:]))
    with pytest.raises(ValueNotReadable, match="never unpickled"):
        decode(put_together(bomb.envelope, b"true"))
    assert not bomb.went_off


def test_a_signal_of_another_instance_is_refused() -> None:
    values = SignedValues(RING, {NODE: put_together(waiting(), b"true")})
    assert values.get_of(NODE, INSTANCE) is not None
    with pytest.raises(TamperedValue, match="another instance"):
        values.get_of(NODE, os.urandom(16))


@pytest.mark.parametrize("length", range(2, 80, 7))
def test_a_signal_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises((ValueNotReadable, UnverifiedValue, TamperedValue)):
        read(put_together(waiting(), b"true")[:length])
    parts = taken_apart(put_together(b"arguments", b"text"))
    assert parts == (b"arguments", b"text")
