"""The broker reads in an envelope what is large about it, and nothing else; whatever comes, it does not stumble."""

import os
from hashlib import sha256
from typing import Any

import pytest

from dagorama.api.contract import LARGE, PARTS
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import encode
from dagorama.values.envelope import PLAIN, large_values
from dagorama.values.signing import RESULT, keyring
from dagorama_broker.rpc.large_values import large_in

PROMISE: Any = DAGPromise._made(b"o" * 12, 7, b"i" * 16, "f", (), {}, None)
VALUES: dict[str, Any] = {
    "text": "t" * 5000,
    "bytes": b"b" * 5000,
    "both": ["t" * 5000, b"b" * 5000, bytearray(5000)],
    "with a promise": [b"b" * 5000, PROMISE, "t" * 5000],
    "small": 1,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_what_a_client_has_kept_apart_is_named(value: Any, signed: bool) -> None:
    envelope = encode(value, large_from=1000, put_large=lambda data: sha256(data).digest()).envelope
    if signed:
        envelope = keyring().sign(envelope, RESULT, bytes(16), bytes(16))
    assert sorted(large_in(envelope)) == sorted(large_values(envelope))


@pytest.mark.parametrize("marks", [LARGE, PARTS, LARGE | PARTS])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 32, 45, 500])
def test_a_malformed_envelope_names_nothing_that_is_not_there(marks: int, length: int) -> None:
    for _ in range(20):
        names = large_in(bytes([1, marks]) + os.urandom(length))
        assert all(len(name) == 32 for name in names)
        assert len(names) <= length // 32
    assert large_in(bytes([1, PARTS]) + bytes(4)) == []
    assert large_in(PLAIN) == []
