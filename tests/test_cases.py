"""Each case of `cases.toml` is shown by tests, and they are where the table says."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())["case"]


@cache
def ids_in(file: str) -> set[str]:
    """The IDs below `file`, without looking into modules that it imports."""
    found: set[str] = set()
    for statement in ast.parse((ROOT / file).read_text()).body:
        within = statement.body if isinstance(statement, ast.ClassDef) and statement.name.startswith("Test") else []
        prefix = f"{file}::{statement.name}::" if isinstance(statement, ast.ClassDef) else f"{file}::"
        for each in within or [statement]:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                found.add(prefix + each.name)
    return found


def test_no_case_is_missing_and_each_is_there_once() -> None:
    assert [case["number"] for case in CASES] == list(range(1, 48))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['number']}: {case['title']}")
def test_it_is_shown_by_tests_that_exist(case: dict[str, object]) -> None:
    named = case["tests"]
    assert isinstance(named, list)
    assert named
    assert len({*named}) == len(named)
    assert not [each for each in named if each not in ids_in(each.partition("::")[0])]
