"""Proofs of cached values: valid for one key, one node and one instance, by a signing key that is held."""

from __future__ import annotations

import pytest

from dagorama.errors import TamperedValue, UnverifiedValue
from dagorama.values.keys import SigningKey
from dagorama.values.signing import Keyring
from dagorama.worker.child.cached import cache_proof, check_cache_proof

RING, OTHER = Keyring([SigningKey(b"s" * 32)]), Keyring([SigningKey(b"o" * 32)])
KEY, INSTANCE, NODE = b"k" * 32, b"i" * 16, b"n" * 16


def test_a_proof_is_valid_for_its_key_and_its_node() -> None:
    check_cache_proof(RING, cache_proof(RING, KEY, INSTANCE, NODE), KEY, INSTANCE, NODE)


@pytest.mark.parametrize(
    ("key", "instance", "node"),
    [(b"K" * 32, INSTANCE, NODE), (KEY, b"I" * 16, NODE), (KEY, INSTANCE, b"N" * 16), (KEY + b"i", INSTANCE[1:], NODE)],
)
def test_it_is_valid_for_no_other(key: bytes, instance: bytes, node: bytes) -> None:
    with pytest.raises(TamperedValue):
        check_cache_proof(RING, cache_proof(RING, KEY, INSTANCE, NODE), key, instance, node)


@pytest.mark.parametrize("proof", [b"", b"x", bytes(40)])
def test_what_is_no_proof_is_refused(proof: bytes) -> None:
    with pytest.raises(UnverifiedValue):
        check_cache_proof(RING, proof, KEY, INSTANCE, NODE)


def test_a_proof_under_a_key_that_is_not_held_is_not_believed() -> None:
    with pytest.raises(UnverifiedValue):
        check_cache_proof(OTHER, cache_proof(RING, KEY, INSTANCE, NODE), KEY, INSTANCE, NODE)
