"""The English of docstrings, comments, messages and documents. `python -m tests.prose PATH...` prints what is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.prose.findings import DOCUMENTS, SOURCES, findings_below, findings_in
from tests.prose.patterns import PATTERNS, Pattern
from tests.prose.texts import COMMENT, DOCSTRING, MESSAGE, PAGE, Text, texts_below
from tests.support.packages import ROOT


@pytest.mark.parametrize("folder", [*SOURCES, *DOCUMENTS])
def test_the_prose_is_plain_english(folder: str) -> None:
    found = list(findings_below([ROOT / folder]))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.finds)
def test_a_pattern_finds_its_phrase(pattern: Pattern) -> None:
    assert list(pattern.find(pattern.kinds[0], pattern.finds))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.passes)
def test_a_pattern_lets_good_english_pass(pattern: Pattern) -> None:
    assert not list(pattern.find(pattern.kinds[0], pattern.passes))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.instead)
def test_the_advice_is_good_english(pattern: Pattern) -> None:
    assert not Counter(found.phrase for found in findings_in(Text(Path(), COMMENT, 1, pattern.instead)))


SOURCE = '''"""A module."""

# The first line of a comment
# and its second line.
NAMES = ("one", "#no comment")  #: a trailing comment


def function():
    """Return nothing."""
    raise ValueError(
        f"a message with {NAMES} of"
        " two lines"
    )
'''


def test_docstrings_comments_and_messages_are_read_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE)
    read = [(text.kind, text.line, text.words.strip()) for text in texts_below([tmp_path])]
    assert sorted(read, key=lambda each: each[1]) == [
        (DOCSTRING, 1, "A module."),
        (COMMENT, 3, "The first line of a comment\n and its second line."),
        (COMMENT, 5, "a trailing comment"),
        (DOCSTRING, 9, "Return nothing."),
        (MESSAGE, 11, "a message with X of two lines"),
    ]


def test_code_in_a_page_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Read `nobody` in\n\n```\nwhoever\n```\n\n[here](whatever.md).\n")
    assert not list(findings_below([tmp_path]))


def test_a_finding_names_its_file_and_line_and_what_to_write_instead(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("A line.\n\nIt is for\never.\n")
    assert list(map(str, findings_below([page]))) == [f"{page}:3: 'for ever': write `forever`"]


def test_a_finding_in_the_second_line_of_a_message_names_that_line(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('raise ValueError(\n    "it is so "\n    "and held anew"\n)\n')
    assert [finding.line for finding in findings_in(next(iter(texts_below([module]))))] == [3]


def test_only_prose_of_a_kind_is_judged_by_patterns_of_that_kind() -> None:
    assert not list(findings_in(Text(Path(), PAGE, 1, "the same in lower case")))
    assert list(findings_in(Text(Path(), DOCSTRING, 1, "the same in lower case.")))
