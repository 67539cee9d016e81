"""Cached values are believed only with signatures: of the process that ran a node, and of the caller of another one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dagorama.api.contract import ENVELOPE_VERSION, FOUND, KEY_ID_BYTES
from dagorama.errors import TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.values.assembly import assemble
from dagorama.values.cached_values import ANNOUNCEMENT, PROOF, check_cache_key, sign_cache_key
from dagorama.values.codec import encode
from dagorama.values.envelope import FOUND_HEAD, references
from dagorama.values.keys import SigningKey
from dagorama.values.signing import ARGUMENTS, RESULT, Keyring, SignedValues
from dagorama_broker.scheduler import caching, hits

RING, STRANGER = Keyring([SigningKey(b"s" * 32)]), Keyring([SigningKey(b"o" * 32)])
KEY, INSTANCE, NODE = b"k" * 32, b"i" * 16, b"n" * 16
OTHER_KEY, OTHER_INSTANCE, OTHER = b"K" * 32, b"I" * 16, b"N" * 16
ROLES = pytest.mark.parametrize("role", [PROOF, ANNOUNCEMENT])


class TestSignatures:
    @ROLES
    def test_one_is_valid_for_its_key_and_its_node(self, role: bytes) -> None:
        check_cache_key(RING, role, sign_cache_key(RING, role, KEY, INSTANCE, NODE), KEY, INSTANCE, NODE)

    @ROLES
    @pytest.mark.parametrize(
        ("key", "instance", "node"),
        [
            (OTHER_KEY, INSTANCE, NODE),
            (KEY, OTHER_INSTANCE, NODE),
            (KEY, INSTANCE, OTHER),
            (KEY + b"i", INSTANCE[1:], NODE),
        ],
    )
    def test_it_is_valid_for_no_other(self, role: bytes, key: bytes, instance: bytes, node: bytes) -> None:
        with pytest.raises(TamperedValue):
            check_cache_key(RING, role, sign_cache_key(RING, role, KEY, INSTANCE, NODE), key, instance, node)

    @ROLES
    @pytest.mark.parametrize("signature", [b"", b"x", bytes(40)])
    def test_what_is_no_signature_is_refused(self, role: bytes, signature: bytes) -> None:
        with pytest.raises(UnverifiedValue):
            check_cache_key(RING, role, signature, KEY, INSTANCE, NODE)

    @ROLES
    def test_one_under_a_key_that_is_not_held_is_not_believed(self, role: bytes) -> None:
        with pytest.raises(UnverifiedValue):
            check_cache_key(STRANGER, role, sign_cache_key(RING, role, KEY, INSTANCE, NODE), KEY, INSTANCE, NODE)

    def test_an_announcement_is_no_proof_and_a_proof_no_announcement(self) -> None:
        for role, other in ((PROOF, ANNOUNCEMENT), (ANNOUNCEMENT, PROOF)):
            with pytest.raises(TamperedValue):
                check_cache_key(RING, role, sign_cache_key(RING, other, KEY, INSTANCE, NODE), KEY, INSTANCE, NODE)


def found(
    key: bytes = KEY,
    announcement: bytes | None = None,
    proof: bytes | None = None,
    other: bytes = OTHER,
    other_instance: bytes = OTHER_INSTANCE,
    instance: bytes = INSTANCE,
) -> bytes:
    """Return the value of NODE, which the broker has found as the value of the cache key KEY in the node OTHER."""
    announcement = announcement or sign_cache_key(RING, ANNOUNCEMENT, KEY, INSTANCE, NODE)
    proof = proof or sign_cache_key(RING, PROOF, KEY, OTHER_INSTANCE, OTHER)
    return b"".join((FOUND_HEAD, key, instance, announcement, other_instance, other, proof))


def computed(value: object = 7, node: bytes = OTHER, instance: bytes = OTHER_INSTANCE, role: bytes = RESULT) -> bytes:
    return RING.sign(encode(value).envelope, role, instance, node)


def read(received: Mapping[bytes, bytes], ring: Keyring = RING) -> object:
    return assemble([NODE], SignedValues(ring, received))[0]


class TestValuesFromTheBroker:
    def test_the_broker_and_the_library_begin_one_alike(self) -> None:
        assert hits.FOUND_HEAD == FOUND_HEAD == bytes((ENVELOPE_VERSION, FOUND))
        assert caching.KEY_ID_BYTES == KEY_ID_BYTES == len(RING.signs_under)

    def test_the_value_is_the_one_of_the_node_that_has_it(self) -> None:
        assert read({NODE: found(), OTHER: computed([1, 2])}) == [1, 2]

    def test_it_names_that_node(self) -> None:
        assert references(RING.open(found(), RESULT, NODE).envelope) == [OTHER]

    def test_two_nodes_with_one_value_have_a_copy_each(self) -> None:
        second = b"2" * 16
        announcement = sign_cache_key(RING, ANNOUNCEMENT, KEY, INSTANCE, second)
        values = {NODE: found(), second: found(announcement=announcement), OTHER: computed([1])}
        one, two = assemble([NODE, second], SignedValues(RING, values))
        assert one == two == [1]
        assert one is not two

    def test_it_belongs_to_the_instance_for_which_its_caller_has_signed(self) -> None:
        values = SignedValues(RING, {NODE: found(), OTHER: computed()})
        assert values.get_of(NODE, INSTANCE) is not None
        with pytest.raises(TamperedValue, match="another instance"):
            values.get_of(NODE, OTHER_INSTANCE)

    def test_a_value_that_was_not_sent_is_named(self) -> None:
        with pytest.raises(ValueNotReadable, match=f"the value of node {OTHER.hex()} is needed and was not sent"):
            read({NODE: found()})

    @pytest.mark.parametrize(
        "lie",
        [
            found(key=OTHER_KEY),
            found(instance=OTHER_INSTANCE),
            found(other=NODE),
            found(other_instance=INSTANCE),
            found(announcement=sign_cache_key(RING, ANNOUNCEMENT, OTHER_KEY, INSTANCE, NODE)),
            found(announcement=sign_cache_key(RING, ANNOUNCEMENT, KEY, INSTANCE, OTHER)),
            found(announcement=sign_cache_key(RING, PROOF, KEY, INSTANCE, NODE)),
            found(proof=sign_cache_key(RING, PROOF, OTHER_KEY, OTHER_INSTANCE, OTHER)),
            found(proof=sign_cache_key(RING, ANNOUNCEMENT, KEY, OTHER_INSTANCE, OTHER)),
        ],
    )
    def test_a_lie_of_the_broker_is_refused(self, lie: bytes) -> None:
        with pytest.raises(TamperedValue):
            read({NODE: lie, OTHER: computed()})

    def test_the_value_itself_must_be_that_of_its_node(self) -> None:
        for wrong in (computed(node=NODE), computed(role=ARGUMENTS)):
            with pytest.raises(TamperedValue):
                read({NODE: found(), OTHER: wrong})
        with pytest.raises(TamperedValue, match="another instance"):
            read({NODE: found(), OTHER: computed(instance=INSTANCE)})

    def test_a_node_that_leads_back_to_itself_is_refused(self) -> None:
        back = b"".join(
            (
                FOUND_HEAD,
                KEY,
                OTHER_INSTANCE,
                sign_cache_key(RING, ANNOUNCEMENT, KEY, OTHER_INSTANCE, OTHER),
                INSTANCE,
                NODE,
                sign_cache_key(RING, PROOF, KEY, INSTANCE, NODE),
            )
        )
        with pytest.raises(ValueNotReadable, match="contains itself"):
            read({NODE: found(), OTHER: back})

    def test_a_reader_without_the_key_believes_nothing(self) -> None:
        with pytest.raises(UnverifiedValue):
            read({NODE: found(), OTHER: computed()}, STRANGER)

    @pytest.mark.parametrize("role", [ARGUMENTS, b"F"])
    def test_it_is_a_value_and_nothing_else(self, role: bytes) -> None:
        with pytest.raises((UnverifiedValue, ValueNotReadable)):
            RING.open(found(), role, NODE)

    @pytest.mark.parametrize("length", range(2, 160, 13))
    def test_one_that_is_cut_short_is_refused(self, length: int) -> None:
        with pytest.raises(ValueNotReadable):
            read({NODE: found()[:length], OTHER: computed()})
        with pytest.raises(ValueNotReadable):
            read({NODE: found() + b"more", OTHER: computed()})
