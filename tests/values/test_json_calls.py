"""Envelopes of JSON functions: never unpickled, never taken for pickles, and read only after their signature."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagorama.api.contract import JSON, SIGNED
from dagorama.errors import DagoramaError, FunctionNotFound, TamperedValue, TypeMismatch, ValueNotReadable
from dagorama.models.outcome import outcome
from dagorama.values.assembly import read_value
from dagorama.values.codec import decode, decode_call, encode_call
from dagorama.values.envelope import content, flags
from dagorama.values.json_calls import JsonFunction
from dagorama.values.json_hints import hints_of, json_function
from dagorama.values.json_shown import shown_arguments, shown_result
from dagorama.values.signing import ARGUMENTS, RESULT
from tests.support.bombs import Bomb, changed, cut_short
from tests.values.test_signing import INSTANCE, NODE, RING, WORK, node, promise


def taken(self: Any, number: int, texts: list[str], *more: int, flag: bool = False, **named: float) -> list[int]:
    return []


def of(function: Callable[..., object]) -> JsonFunction:
    return json_function(function, hints_of(function, {}), {})


TAKEN = of(taken)


def test_arguments_are_an_object_by_parameter() -> None:
    encoded = TAKEN.encode_call((1, ["a"], 2, 3), {"flag": True, "rate": 1.5})
    assert flags(encoded.envelope) == JSON
    assert json.loads(bytes(content(encoded.envelope))) == {
        "number": 1, "texts": ["a"], "more": [2, 3], "flag": True, "named": {"rate": 1.5},
    }  # fmt: skip
    assert TAKEN.decode_call(encoded.envelope, ())[:2] == ((1, ["a"], 2, 3), {"flag": True, "rate": 1.5})


def test_arguments_that_are_not_given_are_left_to_the_function() -> None:
    envelope = TAKEN.encode_call((), {"texts": [], "number": 1}).envelope
    assert TAKEN.decode_call(envelope, ())[:2] == ((1, []), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        (("1", []), {}, "taken(): argument 'number' is"),
        ((1, ["a", 2]), {}, "taken(): argument 'texts'[1] is"),
        ((1, [], 2, None), {}, "taken(): argument 'more'[1] is"),
        ((1, []), {"rate": "x"}, "taken(): argument 'named'['rate'] is"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_place(args: Any, kwargs: Any, place: str) -> None:
    with pytest.raises(TypeMismatch) as refusal:
        TAKEN.encode_call(args, kwargs)
    assert str(refusal.value).startswith(place)


def test_a_promise_anywhere_is_one_source_and_is_filled() -> None:
    one, two = promise(1), promise(2)
    encoded = TAKEN.encode_call((one, [two, "b", two]), {})
    assert encoded.refs == [node(1), node(2)]
    assert TAKEN.decode_call(encoded.envelope, [7, "a"])[:2] == ((7, ["a", "b", "a"]), {})
    with pytest.raises(TypeMismatch, match=r"argument 'texts'\[0\] \(the value of a promise\) is of type int; str is"):
        TAKEN.decode_call(encoded.envelope, [7, 8])


def test_only_promises_under_outcome_tolerate_a_failure() -> None:
    encoded = TAKEN.encode_call((outcome(promise(1)), [promise(2)]), {})
    assert list(encoded.tolerant) == [0]


def test_an_object_that_looks_like_a_promise_is_refused() -> None:
    def free(self: Any, data: dict[str, int]) -> None: ...

    with pytest.raises(TypeMismatch, match="marks a promise"):
        of(free).encode_call(({"$promise": 0},), {})
    assert of(free).encode_call(({"$promise": 0, "more": 1},), {}).refs == []


def test_large_arguments_are_stored_separately() -> None:
    stored: dict[bytes, bytes] = {}

    def put(data: Any) -> bytes:
        stored[b"d" * 32] = bytes(data)
        return b"d" * 32

    encoded = TAKEN.encode_call((1, ["x" * 1000]), {}, large_from=1000, put_large=put)
    assert len(encoded.envelope) < 100
    assert json.loads(stored[b"d" * 32])["texts"] == ["x" * 1000]
    with pytest.raises(ValueNotReadable, match="other bytes"):
        TAKEN.decode_call(encoded.envelope, (), get_large=lambda digest: b"{}")


# --- neither is taken for the other -----------------------------------------------------------------------


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "went off")


def test_a_pickle_is_not_loaded_as_arguments_of_a_json_function(bomb: Bomb) -> None:
    with pytest.raises(TypeMismatch, match='are a pickle, and taken has codec="json"'):
        TAKEN.decode_call(encode_call((bomb, []), {}).envelope, ())
    assert not bomb.went_off


def test_json_is_not_unpickled(bomb: Bomb) -> None:
    head = bytes([1, JSON])
    disguised = head + pickle.dumps(bomb)
    for read in (decode, decode_call, read_value, lambda envelope: TAKEN.decode_call(envelope, ())):
        with pytest.raises(DagoramaError):
            read(disguised)
    assert not bomb.went_off
    for unread in (decode, decode_call):
        with pytest.raises(ValueNotReadable, match="JSON, which is never unpickled"):
            unread(TAKEN.encode_call((1, []), {}).envelope)


@pytest.mark.parametrize("role", [ARGUMENTS, RESULT])
def test_a_signed_pickle_does_not_become_json_nor_the_reverse(role: bytes, bomb: Bomb) -> None:
    function = WORK if role == ARGUMENTS else b""
    for plain in (bomb.envelope, TAKEN.encode_call((1, []), {}).envelope):
        signed = RING.sign(plain, role, INSTANCE, NODE, function)
        swapped = bytes([signed[0], signed[1] ^ JSON]) + signed[2:]
        with pytest.raises(TamperedValue):
            _ = RING.open_arguments(swapped, INSTANCE, NODE, WORK) if function else RING.open(swapped, RESULT, NODE)
    assert not bomb.went_off


def test_every_change_of_signed_json_is_refused() -> None:
    signed = RING.sign(TAKEN.encode_call((promise(1), ["a"]), {}).envelope, ARGUMENTS, INSTANCE, NODE, WORK)
    for other in (*changed(signed), *cut_short(signed)):
        with pytest.raises(DagoramaError):
            RING.open_arguments(other, INSTANCE, NODE, WORK)


def test_signed_json_is_not_read_before_its_signature_was_checked() -> None:
    signed = RING.sign(TAKEN.encode_call((1, []), {}).envelope, ARGUMENTS, INSTANCE, NODE, WORK)
    with pytest.raises(ValueNotReadable, match="has not been checked"):
        TAKEN.decode_call(signed, ())


def test_unsigned_envelopes_of_any_bytes_only_raise_errors_of_ours() -> None:
    envelope = TAKEN.encode_call((promise(1), ["a"]), {}).envelope
    for other in (*changed(envelope), *cut_short(envelope)):
        if len(other) > 1 and other[1] & SIGNED:
            continue
        try:
            TAKEN.decode_call(other, [1])
        except DagoramaError:
            continue


def test_named_arguments_cannot_be_taken_for_a_promise() -> None:
    with pytest.raises(TypeMismatch, match=r"argument 'named' has the single key '\$promise', which marks a promise"):
        TAKEN.encode_call((1, []), {"$promise": 0.5})
    both = TAKEN.encode_call((1, []), {"$promise": 0.5, "rate": promise(1)})
    assert TAKEN.decode_call(both.envelope, (2.5,))[1] == {"$promise": 0.5, "rate": 2.5}


# --- results ----------------------------------------------------------------------------------------------


def test_a_result_names_its_function() -> None:
    envelope = TAKEN.encode_result("a.module:Class.method", [1, 2]).envelope
    assert json.loads(bytes(content(envelope))) == {"of": "a.module:Class.method", "value": [1, 2]}


def test_a_result_of_a_function_that_is_not_here_is_refused_with_its_name() -> None:
    envelope = TAKEN.encode_result("a.module:Class.method", [1]).envelope
    with pytest.raises(ValueNotReadable, match=r"a\.module:Class.* cannot be found") as refusal:
        read_value(envelope)
    assert isinstance(refusal.value.__cause__, FunctionNotFound)


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b'{"of":1,"value":2}', b'{"of":"os:system.x","value":2}', b"x", b"\xff"]
)
def test_a_result_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(ValueNotReadable):
        read_value(bytes([1, JSON]) + text)


def test_no_module_that_unpickles_by_value_is_loaded_for_json() -> None:
    program = (
        "import sys\n"
        "from dagorama.values.typed_json import json_type\n"
        "json_type(list[int]).decode(json_type(list[int]).encode([1]))\n"
        "print(sorted({'cloudpickle', 'pydantic', 'msgspec', 'grpc'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- shown ------------------------------------------------------------------------------------------------


def test_json_is_shown_from_signed_envelopes_with_names_for_promises() -> None:
    signed = RING.sign(TAKEN.encode_call((promise(1), ["a" * 50]), {}).envelope, ARGUMENTS, INSTANCE, NODE, WORK)
    shown = shown_arguments(signed, lambda id: f"no. {id[-1]}", 20)
    assert shown == [("number", '"<value of node no. 1>"'[:20] + " ..."), ("texts", '["' + "a" * 18 + " ...")]
    result = shown_result(TAKEN.encode_result("m:C.f", [1]).envelope, bytes.hex)
    assert result == ("", "[1]")


def test_pickles_and_other_bytes_are_not_shown() -> None:
    assert shown_arguments(encode_call((1,), {}).envelope, bytes.hex) is None
    assert shown_result(b"", bytes.hex) is None
    assert shown_result(bytes([1, JSON]) + b"x", bytes.hex) == ("", "it cannot be read (JSONDecodeError)")
