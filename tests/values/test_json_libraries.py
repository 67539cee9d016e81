"""Classes of pydantic and msgspec as JSON, and plain types: the same JSON as these libraries read and write."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, is_typeddict

import pytest

from dagorama.errors import TypeMismatch
from dagorama.values.typed_json import json_type
from tests.values.test_typed_json import SURVIVE, Order

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed: pip install 'dagorama[json]'")
msgspec = pytest.importorskip("msgspec", reason="msgspec is not installed: pip install 'dagorama[json]'")

PYDANTIC_FORM = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
#: Rows that msgspec has no type for, or reads as another member of the union.
NOT_IN_MSGSPEC = ("Mode", "Cat", "list[tests.values.test_typed_json.Item", "Literal[<Color", "Mapping", "Any")


class Payment(pydantic.BaseModel):  # type: ignore[name-defined,misc]  # not installed everywhere
    amount: Annotated[int, pydantic.Field(gt=0)]
    at: datetime
    parts: list[Payment] = []


class Parcel(msgspec.Struct):  # type: ignore[name-defined,misc]  # not installed everywhere
    weight: float
    label: bytes = b""


def pydantic_type(annotation: Any) -> Any:
    try:
        return pydantic.TypeAdapter(annotation, config=PYDANTIC_FORM)
    except pydantic.errors.PydanticUserError:  # a class with a configuration of its own
        return pydantic.TypeAdapter(annotation)


@pytest.mark.parametrize(("annotation", "value", "text"), SURVIVE, ids=range(len(SURVIVE)))
def test_pydantic_reads_what_is_written_and_writes_what_is_read(annotation: Any, value: object, text: str) -> None:
    if is_typeddict(annotation) and sys.version_info < (3, 12):
        pytest.skip("pydantic takes typing.TypedDict from Python 3.12 on")
    adapter, form = pydantic_type(annotation), json_type(annotation)
    assert adapter.validate_json(text) == value
    if annotation is not bytes:  # pydantic has another alphabet of base64
        assert form.decode(adapter.dump_json(value)) == value


@pytest.mark.parametrize(("annotation", "value", "text"), SURVIVE, ids=range(len(SURVIVE)))
def test_msgspec_reads_what_is_written_and_writes_what_is_read(annotation: Any, value: object, text: str) -> None:
    if any(name in str(annotation) for name in NOT_IN_MSGSPEC):
        pytest.skip("msgspec has no such type")
    assert msgspec.json.decode(text, type=annotation) == value
    assert json_type(annotation).decode(msgspec.json.encode(value)) == value


def test_classes_of_both_are_written_and_read_by_their_library_within_plain_types() -> None:
    payment = Payment(amount=1, at=datetime(2026, 1, 2, tzinfo=UTC))
    form = json_type(dict[str, list[Payment] | Parcel])
    value = {"a": [payment], "b": Parcel(1.5, b"\xff")}
    data = form.encode(value)
    assert json.loads(data) == {
        "a": [{"amount": 1, "at": "2026-01-02T00:00:00Z", "parts": []}], "b": {"weight": 1.5, "label": "/w=="},
    }  # fmt: skip
    assert form.decode(data) == value


def test_a_model_that_json_changes_is_refused_where_it_is_sent() -> None:
    class Loose(pydantic.BaseModel):  # type: ignore[name-defined,misc]  # not installed everywhere
        number: float
        hidden: int = pydantic.Field(default=0, exclude=True)

    form = json_type(Loose)
    assert form.decode(form.encode(Loose(number=1.5))) == Loose(number=1.5)
    with pytest.raises(TypeMismatch, match="JSON loses a part of it"):
        form.encode(Loose(number=1.5, hidden=3))
    with pytest.raises(TypeMismatch, match=r"cannot be written as .*Loose"):
        form.encode(Loose(number=float("nan")))


def test_a_model_with_a_value_of_another_type_is_refused_without_quoting_it() -> None:
    wrong = Payment.model_construct(amount="secret", at=datetime(2026, 1, 2, tzinfo=UTC), parts=[])
    with pytest.raises(TypeMismatch, match="cannot be written as Payment") as refusal:
        json_type(Payment).encode(wrong)
    assert "secret" not in str(refusal.value)


def test_json_that_a_model_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(TypeMismatch, match=r"argument 'p'\[0\] is not a Payment \(amount: .*greater than 0\)"):
        json_type(list[Payment]).decode(b'[{"amount":0,"at":"2026-01-02T00:00:00Z"}]', "argument 'p'")
    with pytest.raises(TypeMismatch, match=r"is not a Parcel \(.*Expected `float`"):
        json_type(Parcel).decode(b'{"weight":"1"}')


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Annotated[int, pydantic.Field(gt=0)], 1, 0),
        (Annotated[list[int], pydantic.Field(max_length=2)], [1, 2], [1, 2, 3]),
        (Annotated[str, msgspec.Meta(min_length=2)], "ab", "a"),
        (Annotated[timedelta, pydantic.Field(gt=timedelta())], timedelta(1), timedelta(-1)),
    ],
)
def test_constraints_hold_on_both_sides(annotation: Any, good: object, bad: object) -> None:
    form = json_type(annotation)
    assert form.decode(form.encode(good)) == good
    with pytest.raises(TypeMismatch, match="does not fit"):
        form.encode(bad)
    plain = json_type(annotation.__origin__)
    with pytest.raises(TypeMismatch, match="does not fit"):
        form.decode(plain.encode(bad))


def test_a_validator_that_changes_the_value_is_refused() -> None:
    stripped = Annotated[str, pydantic.AfterValidator(str.strip)]
    assert json_type(stripped).encode("a") == b'"a"'
    with pytest.raises(TypeMismatch, match="changed by a validator"):
        json_type(stripped).encode(" a")


def test_schemas_of_both_are_part_of_the_schema() -> None:
    schema = json_type(tuple[Payment, Parcel, Order]).schema()
    assert {"Payment", "Parcel", "Order", "Item"} <= schema["$defs"].keys()
    assert schema["$defs"]["Payment"]["properties"]["amount"]["exclusiveMinimum"] == 0
