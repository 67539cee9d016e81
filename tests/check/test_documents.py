"""The page of the codes: its bad snippets report their code and nothing else, its good ones nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from dagorama_check.checking import check_files
from dagorama_check.codes import PAGE, RULES
from dagorama_check.files import made_file

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / PAGE).read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Return the text of each section whose heading is a code."""
    parts = re.split(r"^## (DAG\d+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def codes_in(text: str) -> set[str]:
    """Return the codes that are reported for a program, with all codes selected."""
    result = check_files([made_file("snippet.py", text.encode())], RULES.keys())
    assert not result.unreadable
    return {finding.code for finding in result.findings}


def test_each_code_has_its_section_and_a_row_with_its_title() -> None:
    assert list(sections()) == list(RULES)
    for code, rule in RULES.items():
        assert f"| [{code}](#{code.lower()}) | {rule.title}" in TEXT
        assert rule.is_default != (f"{rule.title}; off by default |" in TEXT)


@pytest.mark.parametrize("code", RULES)
def test_the_bad_snippet_of_a_section_reports_its_code_and_the_good_one_nothing(code: str) -> None:
    bad, good = PYTHON.findall(sections()[code])
    assert codes_in(bad) == {code}
    assert codes_in(good) == set()


def test_the_comments_of_the_page_silence_their_lines() -> None:
    lines = PYTHON.findall(TEXT)[0].splitlines()
    assert len(lines) == 3
    bad = PYTHON.findall(sections()["DAG002"])[0]
    for line in lines:
        comment = line.partition("#")[2]
        silenced = "\n".join(f"{each}  #{comment}" if "self.square(2)" in each else each for each in bad.splitlines())
        ast.parse(silenced)
        assert codes_in(silenced) == set(), comment


def test_the_hook_for_pre_commit_runs_the_command() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    page = (ROOT / "docs" / "how-to" / "check-your-code.md").read_text()
    assert hook["entry"] == "dagorama check"
    assert f"- id: {hook['id']}\n" in page
