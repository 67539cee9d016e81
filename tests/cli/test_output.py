"""The forms of output: JSON with a version and two forms of times, lines, names, and tables that are cut for people."""

from __future__ import annotations

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from dagorama.cli.base import fail
from dagorama.cli.output import Answer, Output, cut_note, document, print_out, utc_text
from dagorama.client.display.tables import MAX_CELL_CHARACTERS, table
from dagorama.settings import no_color

LISTED = Answer("a table", [{"name": "one"}, {"name": "two"}], names=["one", "two"])


def shown(answer: Answer, output: Output, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    print_out(answer, output)
    said = capsys.readouterr()
    return said.out, said.err


def test_each_form_prints_the_same_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(LISTED, Output.TABLE, capsys) == ("a table\n", "")
    assert shown(LISTED, Output.NAME, capsys) == ("one\ntwo\n", "")
    expected = [{"schema_version": 1, "name": name} for name in ("one", "two")]
    assert json.loads(shown(LISTED, Output.JSON, capsys)[0]) == expected
    lines = shown(LISTED, Output.JSONL, capsys)[0].splitlines()
    assert [json.loads(line) for line in lines] == expected


def test_nothing_is_printed_for_no_names_and_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    empty = Answer("no instances", [], "a note")
    assert shown(empty, Output.NAME, capsys) == ("", "a note\n")
    assert shown(empty, Output.JSONL, capsys) == ("", "a note\n")
    assert shown(empty, Output.TABLE, capsys) == ("no instances\n", "a note\n")


def test_lines_are_the_records_of_an_answer_if_it_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer("", {"nodes": [{"n": 1}]}, records=[{"n": 1}])
    assert json.loads(shown(answer, Output.JSONL, capsys)[0]) == {"schema_version": 1, "n": 1}


def test_times_are_in_iso_8601_too_at_any_depth() -> None:
    data = {"created": 0.5, "ended_at": None, "inner": [{"since": 1_700_000_000}], "nodes": 3}
    assert document(data) == {
        "schema_version": 1, "created": 0.5, "created_utc": "1970-01-01T00:00:00.500000Z", "ended_at": None,
        "ended_at_utc": None, "inner": [{"since": 1_700_000_000, "since_utc": "2023-11-14T22:13:20.000000Z"}],
        "nodes": 3,
    }  # fmt: skip
    assert utc_text(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"


def test_cells_are_cut_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * (MAX_CELL_CHARACTERS + 1)
    assert long in table(("reason",), [(long,)])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert f"{'x' * (MAX_CELL_CHARACTERS - 3)}..." in table(("reason",), [(long,)])


def test_nothing_that_a_node_wrote_controls_the_terminal_of_the_reader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "ValueError: \x1b]0;title\x07\tred\x1b[31m\r\n\u202enext"
    answer = Answer(error, {"reason": error}, error)
    assert "\x1b]0;title" in shown(answer, Output.TABLE, capsys)[0], "files and pipes get what was written"
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    escaped = "ValueError: \\x1b]0;title\\x07\tred\\x1b[31m\\x0d\n\\u202enext\n"
    assert shown(answer, Output.TABLE, capsys) == (escaped, escaped)
    with pytest.raises(SystemExit):
        fail(error, 1)
    assert capsys.readouterr().err == f"dagorama: {escaped}"


def test_a_note_says_how_much_was_cut() -> None:
    assert cut_note(100, 1500, "nodes") == "100 of 1,500 nodes are shown; --limit 0 shows all."
    assert cut_note(100, None, "instances") == "The first 100 of more instances are shown; --limit 0 shows all."


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("", False), (None, False)])
def test_no_color_turns_colors_off(value: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    assert no_color() is expected
    printed = StringIO()
    Console(force_terminal=True, color_system="truecolor", file=printed).print("[red]text[/red]")
    assert ("31m" in printed.getvalue()) is not expected
