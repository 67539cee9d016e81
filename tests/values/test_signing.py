"""Signatures: good in one place alone, and nothing is read before they are checked."""

import hmac
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dagorama.errors import DagoramaError, TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.models.promise import DAGPromise
from dagorama.values.assembly import decode_promised
from dagorama.values.codec import decode, encode, encode_call
from dagorama.values.envelope import large_of, references
from dagorama.values.keys import LABEL, SigningKey
from dagorama.values.out_of_band import Buffer
from dagorama.values.signing import ARGUMENTS, FAILURE, RESULT, Keyring, SignedValues, function_digest
from tests.support.bombs import Bomb, changed, cut_short

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
RING, OTHER = Keyring([SigningKey(SECRET)]), Keyring([SigningKey(OTHER_SECRET)])
INSTANCE, NODE = b"an instance's id", b"the id of a node"
WORK = function_digest("module:Task.work", "hash")
REFUSALS = (TamperedValue, UnverifiedValue, ValueNotReadable)


def promise(counter: int, origin: bytes = b"o" * 12) -> DAGPromise[Any]:
    return DAGPromise._made(origin, counter, INSTANCE, "f", (), {}, ("file", 1))


def node(counter: int) -> bytes:
    return b"o" * 12 + counter.to_bytes(4, "big")


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "went off")


# --- what a signature is -------------------------------------------------------------------------------


def test_what_was_signed_opens_in_its_place() -> None:
    signed = RING.sign(encode([1, "two"]).envelope, RESULT, INSTANCE, NODE)
    instance, envelope = RING.open(signed, RESULT, NODE)
    assert instance == INSTANCE
    assert decode(envelope) == [1, "two"]


def test_it_is_an_hmac_of_the_place_the_header_and_the_rest() -> None:
    plain = encode_call((1,), {}).envelope
    signed = RING.sign(plain, ARGUMENTS, INSTANCE, NODE, WORK)
    head, mac, rest = signed[:26], signed[26:58], signed[58:]
    assert head == b"\x01\x01" + SigningKey(SECRET).id + INSTANCE
    assert rest == plain[2:]
    assert mac == hmac.digest(SECRET, LABEL + ARGUMENTS + NODE + WORK + head + rest, "sha256")


def test_signed_is_not_encrypted_and_it_is_written_down_who_can_read() -> None:
    """Whoever has the bytes can read them without a key."""
    assert b"for all to read" in RING.sign(encode("for all to read").envelope, RESULT, INSTANCE, NODE)
    written = " ".join((Path(__file__).parents[2] / "SECURITY.md").read_text().split())
    assert "**Signed is not encrypted.** The broker, its callers, and everyone who can read its store" in written


def test_the_table_of_promises_and_the_name_of_a_large_value_can_be_read_of_signed_envelopes() -> None:
    with_promises = RING.sign(encode([promise(1), promise(2)]).envelope, RESULT, INSTANCE, NODE)
    assert references(with_promises) == [node(1), node(2)]
    large = encode("h" * 99, large_from=10, put_large=lambda data: b"h" * 32).envelope
    signed = RING.sign(large, RESULT, INSTANCE, NODE)
    assert large_of(signed) == large_of(large)
    assert signed[-32:] == b"h" * 32


def test_a_signed_envelope_is_not_read_before_it_is_opened(bomb: Bomb) -> None:
    with pytest.raises(ValueNotReadable, match="signature has not been checked"):
        decode(RING.sign(bomb.envelope, RESULT, INSTANCE, NODE))
    assert not bomb.went_off


# --- what is refused ------------------------------------------------------------------------------------


def envelopes(bomb: Bomb) -> list[bytes]:
    """Of every kind."""
    return [
        bomb.envelope,
        encode([bomb, promise(1), promise(2, b"p" * 12)]).envelope,
        encode([bomb], large_from=1, put_large=lambda data: b"h" * 32).envelope,
        encode([bomb, promise(1)], large_from=1, put_large=lambda data: b"h" * 32).envelope,
    ]


@pytest.mark.parametrize("damage", [changed, cut_short])
def test_no_byte_of_an_envelope_can_be_changed(bomb: Bomb, damage: Callable[[bytes], Any]) -> None:
    for plain in envelopes(bomb):
        signed = RING.sign(plain, RESULT, INSTANCE, NODE)
        for bad in damage(signed):
            with pytest.raises(REFUSALS):
                decode(RING.open(bad, RESULT, NODE).envelope)
        with pytest.raises(TamperedValue):
            RING.open(signed + b"more", RESULT, NODE)
    assert not bomb.went_off


def test_changes_behind_the_header_are_tampering() -> None:
    signed = RING.sign(encode("value").envelope, RESULT, INSTANCE, NODE)
    for bad in changed(signed[10:]):
        with pytest.raises(TamperedValue, match="was changed"):
            RING.open(signed[:10] + bad, RESULT, NODE)


@given(some.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_sentence(data: bytes) -> None:
    for bytes_ in (data, b"\x01\x01" + data, b"\x01\x01" + SigningKey(SECRET).id + data):
        with pytest.raises(DagoramaError) as refusal:
            RING.open(bytes_, RESULT, NODE)
        assert isinstance(refusal.value, REFUSALS)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({"role": FAILURE}, id="role"),
        pytest.param({"node": b"id of other node"}, id="node"),
        pytest.param({"node": NODE[:-1]}, id="short node"),
        pytest.param({"node": b""}, id="no node"),
    ],
)
def test_a_result_is_good_for_its_role_and_node_alone(place: dict[str, Any]) -> None:
    signed = RING.sign(encode("value").envelope, RESULT, INSTANCE, NODE)
    with pytest.raises(TamperedValue):
        RING.open(signed, **{"role": RESULT, "node": NODE, **place})


def test_a_short_node_is_no_place_even_where_it_was_signed() -> None:
    signed = RING.sign(encode("value").envelope, RESULT, INSTANCE, NODE[:-1])
    with pytest.raises(TamperedValue):
        RING.open(signed, RESULT, NODE[:-1])


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({"instance": b"other instance's"}, id="instance"),
        pytest.param({"node": b"id of other node"}, id="node"),
        pytest.param({"function": function_digest("module:Task.other", "hash")}, id="function"),
        pytest.param({"function": function_digest("module:Task.work", "other")}, id="hash"),
        pytest.param({"function": function_digest("module:Task.workh", "ash")}, id="name and hash shifted"),
        pytest.param({"function": b""}, id="no function"),
    ],
)
def test_arguments_are_good_for_their_instance_node_function_and_code_alone(place: dict[str, bytes]) -> None:
    signed = RING.sign(encode_call((1,), {}).envelope, ARGUMENTS, INSTANCE, NODE, WORK)
    right = {"instance": INSTANCE, "node": NODE, "function": WORK}
    assert decode(RING.open_arguments(signed, **right)) == ((1,), {})
    with pytest.raises(TamperedValue):
        RING.open_arguments(signed, **{**right, **place})


def test_arguments_are_no_result_and_a_result_no_arguments() -> None:
    arguments = RING.sign(encode_call((1,), {}).envelope, ARGUMENTS, INSTANCE, NODE, WORK)
    result = RING.sign(encode_call((1,), {}).envelope, RESULT, INSTANCE, NODE)
    for role in (RESULT, FAILURE):
        with pytest.raises(TamperedValue):
            RING.open(arguments, role, NODE)
    with pytest.raises(TamperedValue):
        RING.open_arguments(result, INSTANCE, NODE, WORK)


def test_the_instance_in_an_envelope_cannot_be_exchanged() -> None:
    signed = RING.sign(encode("value").envelope, RESULT, INSTANCE, NODE)
    with pytest.raises(TamperedValue):
        RING.open(signed.replace(INSTANCE, b"other instance's"), RESULT, NODE)


def test_a_large_value_is_bound_by_its_length_and_content(bomb: Bomb) -> None:
    kept: dict[bytes, bytes] = {}

    def put(data: Buffer) -> bytes:
        kept[sha256(data).digest()] = bytes(data)
        return sha256(data).digest()

    signed = RING.sign(encode(bytes(99), large_from=10, put_large=put).envelope, RESULT, INSTANCE, NODE)
    opened = RING.open(signed, RESULT, NODE).envelope
    assert decode(opened, get_large=kept.__getitem__) == bytes(99)
    with pytest.raises(ValueNotReadable, match="other bytes were received"):
        decode(opened, get_large=lambda digest: pickle.dumps(bomb))
    assert not bomb.went_off


# --- keys -----------------------------------------------------------------------------------------------


def test_what_is_unsigned_is_refused_with_what_to_set(bomb: Bomb) -> None:
    with pytest.raises(UnverifiedValue, match="the signature of the value is missing: set DAGORAMA_SIGNING_KEYS"):
        RING.open(bomb.envelope, RESULT, NODE)
    assert not bomb.went_off


def test_what_is_signed_under_a_key_that_is_not_held_is_refused_with_its_id() -> None:
    signed = OTHER.sign(encode("value").envelope, RESULT, INSTANCE, NODE)
    with pytest.raises(UnverifiedValue, match=f"{OTHER.signs_under.hex()}.*set DAGORAMA_SIGNING_KEYS"):
        RING.open(signed, RESULT, NODE)


def test_a_key_that_goes_by_the_id_of_another_signs_nothing() -> None:
    false = SigningKey(OTHER_SECRET)
    false.id = SigningKey(SECRET).id
    signed = Keyring([false]).sign(encode("value").envelope, RESULT, INSTANCE, NODE)
    with pytest.raises(TamperedValue):
        RING.open(signed, RESULT, NODE)


def test_the_first_key_signs_and_all_check() -> None:
    both = Keyring([SigningKey(OTHER_SECRET), SigningKey(SECRET)])
    assert decode(both.open(RING.sign(encode(1).envelope, RESULT, INSTANCE, NODE), RESULT, NODE).envelope) == 1
    signed = both.sign(encode(2).envelope, RESULT, INSTANCE, NODE)
    assert decode(OTHER.open(signed, RESULT, NODE).envelope) == 2
    with pytest.raises(UnverifiedValue):
        RING.open(signed, RESULT, NODE)


def test_neither_keys_nor_keyrings_show_or_pickle_a_secret() -> None:
    for holder in (SigningKey(SECRET), RING):
        assert SECRET.decode() not in repr(holder)
        assert SigningKey(SECRET).id.hex() in repr(holder)
        with pytest.raises(TypeError, match="cannot be pickled: each process loads its own"):
            pickle.dumps(holder)


# --- values that name others --------------------------------------------------------------------------------


def chain(links: int) -> dict[bytes, bytes]:
    """Values of nodes each of which has returned the promise of the next."""
    values = {node(number): encode([promise(number + 1)]).envelope for number in range(links)}
    values[node(links)] = encode("the end").envelope
    return {id: RING.sign(envelope, RESULT, INSTANCE, id) for id, envelope in values.items()}


class Counting(Keyring):
    """Counts how often it opens something."""

    __slots__ = ("opened",)

    def open(self, *args: Any, **named: Any) -> Any:
        self.opened = getattr(self, "opened", 0) + 1
        return super().open(*args, **named)


def test_each_of_a_thousand_links_is_checked_once_under_its_own_node() -> None:
    ring = Counting([SigningKey(SECRET)])
    found: Any = decode_promised(node(0), SignedValues(ring, chain(1000)))
    for _ in range(1000):
        (found,) = found
    assert found == "the end"
    assert ring.opened == 1001


def test_no_link_can_stand_for_another() -> None:
    for swap in ((0, 1), (500, 501), (999, 1000), (3, 700)):
        values = chain(1000)
        one, other = map(node, swap)
        values[one], values[other] = values[other], values[one]
        with pytest.raises(TamperedValue):
            decode_promised(node(0), SignedValues(RING, values))


def test_a_link_that_does_not_come_is_named() -> None:
    values = chain(3)
    del values[node(2)]
    with pytest.raises(ValueNotReadable, match=node(2).hex()):
        decode_promised(node(0), SignedValues(RING, values))


def test_a_value_of_another_instance_may_be_named_but_not_be_a_source() -> None:
    values = {
        node(0): RING.sign(encode(promise(1)).envelope, RESULT, INSTANCE, node(0)),
        node(1): RING.sign(encode("inner").envelope, RESULT, b"other instance's", node(1)),
    }
    assert decode_promised(node(0), SignedValues(RING, values)) == "inner"
    with pytest.raises(TamperedValue, match="another instance"):
        SignedValues(RING, values).get_of(node(1), INSTANCE)
