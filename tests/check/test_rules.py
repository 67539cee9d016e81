"""The checker finds each planted misuse at its line, and nothing else there or in the silent snippets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.check.running import HERE, MARK, PLANTED, SILENT

checker: Any = pytest.importorskip("dagorama_check", reason="the rules are not written yet")

Found = Counter[tuple[int, str]]


def marks_in(file: Path) -> Found:
    """Return the codes that the marks of a file ask for, with their lines."""
    lines = enumerate(file.read_text().splitlines(), 1)
    return Counter((number, code) for number, line in lines for code in line.partition(MARK)[2].split(", ") if code)


def findings_by_file(folder: str) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for finding in checker.check_paths([str(HERE)], select=["DAG"]).findings:
        file = Path(finding.path)
        if file.parent.name == folder:
            found.setdefault(file.stem, Counter())[finding.line, finding.code] += 1
    return found


@pytest.fixture(scope="module")
def planted() -> dict[str, Found]:
    return findings_by_file("planted")


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_misuse_is_found_at_its_line_and_nothing_else(name: str, planted: dict[str, Found]) -> None:
    assert planted.get(name, Counter()) == marks_in(HERE / "planted" / f"{name}.py")


@pytest.mark.parametrize("name", SILENT)
def test_good_code_gets_no_finding(name: str) -> None:
    assert findings_by_file("silent").get(name, Counter()) == Counter()


def test_enough_is_planted() -> None:
    codes = Counter(code for name in PLANTED for _, code in marks_in(HERE / "planted" / f"{name}.py").elements())
    assert set(codes) == {f"DAG{number:03}" for number in range(1, 11)}
    assert sum(codes.values()) >= 100
    assert len(PLANTED) >= 23
