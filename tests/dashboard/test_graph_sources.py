"""The JavaScript and CSS of the graph stay readable, and make nothing of user text but text."""

import re
from pathlib import Path

import pytest

GRAPH = Path(__file__).parents[2] / "dagorama_dashboard" / "static" / "graph"
FILES = sorted([*GRAPH.glob("*.js"), *GRAPH.glob("*.css")])
#: Ways from text to markup or code, and inline styles, which the policy of the pages forbids.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function\(|"
    r"setAttribute\(\"style\"|https?://(?!www\.w3\.org/2000/svg)"
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_has_one_subject_and_lines_that_fit(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 300
    assert [line for line in lines if len(line) > 120] == []
    assert lines[0].startswith(("// ", "/* "))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_text_becomes_neither_markup_nor_code(file: Path) -> None:
    assert FORBIDDEN.findall(file.read_text()) == []


def test_all_imports_are_files_beside_the_module_or_vendored() -> None:
    for file in GRAPH.glob("*.js"):
        for name in re.findall(r'from "([^"]+)"', file.read_text()):
            assert (GRAPH / name).is_file(), f"{file.name} imports {name}"
