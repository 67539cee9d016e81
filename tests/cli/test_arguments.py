"""Arguments from the command line become values by the annotations of the entry point."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest

from dagorama.cli.arguments import WrongArguments, read_arguments

if TYPE_CHECKING:
    from decimal import Decimal


class Entries:
    def typed(
        self, number: int, ratio: float, yes: bool, text: str, path: Path, items: list[int], table: dict[str, float]
    ) -> None: ...

    def maybe(self, one: int | None, other: Optional[str] = None, kind: Literal["a", 2] = "a") -> None: ...  # noqa: UP045

    def untyped(self, one, other=None) -> None: ...  # type: ignore[no-untyped-def]

    def many(self, *numbers: int, scale: float = 1.0) -> None: ...

    def containers(self, pair: tuple[int, str], files: list[Path], unique: set[int], either: int | str) -> None: ...

    def elsewhere(self, amount: Decimal, other: object = None) -> None: ...


def read(entry: Any, *texts: str) -> tuple[list[Any], dict[str, Any]]:
    return read_arguments(entry, "D.entrypoint", texts)


def wrong(entry: Any, *texts: str) -> str:
    with pytest.raises(WrongArguments) as error:
        read(entry, *texts)
    return str(error.value)


def test_simple_types_and_containers_are_read_as_themselves() -> None:
    found = read(Entries.typed, "1", "2", "yes", "3", "a/b", "[1, 2]", '{"a": 1}')
    assert found == ([1, 2.0, True, "3", Path("a/b"), [1, 2], {"a": 1.0}], {})
    assert [type(value) for value in found[0][:4]] == [int, float, bool, str]
    (pair, files, unique, either), _ = read(Entries.containers, '[1, "x"]', '["a"]', "[1, 1]", "7")
    assert (pair, files, unique, either) == ((1, "x"), [Path("a")], {1}, 7)
    assert read(Entries.containers, '[1, "x"]', "[]", "[]", "seven")[0][3] == "seven"


def test_an_optional_argument_may_be_null_unless_it_may_be_text() -> None:
    assert read(Entries.maybe, "null") == ([None], {})
    assert read(Entries.maybe, "5", "null", "2") == ([5, "null", 2], {})


def test_without_an_annotation_an_argument_is_json_or_text() -> None:
    assert read(Entries.untyped, '{"a": [1]}', "[1") == ([{"a": [1]}, "[1"], {})
    assert read(Entries.elsewhere, "1.5") == ([1.5], {}), "the annotation cannot be evaluated"


def test_a_name_makes_a_keyword_argument_if_the_entry_point_has_it() -> None:
    assert read(Entries.many, "1", "2", "scale=0.5") == ([1, 2], {"scale": 0.5})
    assert read(Entries.untyped, "one=1", "other=2") == ([], {"one": 1, "other": 2})
    assert read(Entries.untyped, "what=1") == (["what=1"], {})


@pytest.mark.parametrize(("texts", "said"), [
    (("x", "1", "1", "", "", "[]", "{}"), "number is 'x': it must be a whole number"),
    (("1.5", "1", "1", "", "", "[]", "{}"), "number is '1.5': it must be a whole number"),
    (("1", "x", "1", "", "", "[]", "{}"), "ratio is 'x': it must be a number"),
    (("1", "1", "maybe", "", "", "[]", "{}"), "yes is 'maybe': it must be true or false"),
    (("1", "1", "1", "", "", "{}", "{}"), "items is '{}': it must be an array in JSON"),
    (("1", "1", "1", "", "", "[1,", "{}"), "items is '[1,': it must be an array in JSON ("),
    (("1", "1", "1", "", "", '[1, "x"]', "{}"), "it must be an array whose item 1 is a whole number"),
    (("1", "1", "1", "", "", "[true]", "{}"), "it must be an array whose item 0 is a whole number"),
    (("1", "1", "1", "", "", "[]", '{"a": "x"}'), "table is '{\"a\": \"x\"}': it must be a number"),
])  # fmt: skip
def test_a_value_of_another_type_is_named_with_what_it_must_be(texts: tuple[str, ...], said: str) -> None:
    assert said in wrong(Entries.typed, *texts)


def test_too_few_too_many_and_unknown_arguments_are_told_with_the_signature() -> None:
    assert wrong(Entries.untyped) == "D.entrypoint(one, other=None): missing a required argument: 'one'"
    assert "D.entrypoint(one, other=None): too many positional arguments" in wrong(Entries.untyped, "1", "2", "3")
    assert "multiple values for argument 'one'" in wrong(Entries.untyped, "1", "one=2")
    assert wrong(Entries.untyped, "one=1", "one=2") == "one is given twice"
    assert "it must be one of a, 2" in wrong(Entries.maybe, "1", "x", "c")
    assert "one is 'x': it must be a whole number" in wrong(Entries.maybe, "x")
