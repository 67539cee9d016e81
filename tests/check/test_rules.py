"""The checker finds each planted misuse at its line, and nothing else there or in the silent snippets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dagorama_check.checking import check_paths
from tests.check.running import HERE, MARK, PLANTED, SILENT

Found = Counter[tuple[int, str]]


def marks_in(file: Path) -> Found:
    """Return the codes that the marks of a file ask for, with their lines."""
    lines = enumerate(file.read_text().splitlines(), 1)
    return Counter((number, code) for number, line in lines for code in line.partition(MARK)[2].split(", ") if code)


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    """The findings in the files of both folders, by folder and name."""
    found: dict[str, Found] = {}
    for finding in check_paths([str(HERE)], select=["DAG"]).findings:
        file = Path(finding.path)
        found.setdefault(f"{file.parent.name}/{file.stem}", Counter())[finding.line, finding.code] += 1
    return found


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_misuse_is_found_at_its_line_and_nothing_else(name: str, found: dict[str, Found]) -> None:
    assert found.get(f"planted/{name}", Counter()) == marks_in(HERE / "planted" / f"{name}.py")


@pytest.mark.parametrize("name", SILENT)
def test_good_code_gets_no_finding(name: str, found: dict[str, Found]) -> None:
    assert f"silent/{name}" not in found


def test_enough_is_planted() -> None:
    codes = Counter(code for name in PLANTED for _, code in marks_in(HERE / "planted" / f"{name}.py").elements())
    assert set(codes) == {f"DAG{number:03}" for number in range(1, 11)}
    assert sum(codes.values()) >= 100
    assert len(PLANTED) >= 23


def test_a_promise_of_a_helper_in_another_file_is_made_in_the_line_that_calls_it() -> None:
    findings = check_paths([str(HERE / "planted" / name) for name in ("helpers.py", "nodes.py")]).findings
    (message,) = [finding.message for finding in findings if finding.line == 10]
    assert "a promise of `Nodes.measure`, made in line 10: " in message
