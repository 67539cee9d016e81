"""The commands that the documents show exist, with the options that they are shown with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dagorama.__main__ import main
from tests.test_documents import FENCED, PAGES, name_of, prose_of

#: Code in a sentence, and a line of a block that is no program.
SPAN = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"--[a-z][a-z-]+")
#: The text that a signature covers begins like a command.
NO_COMMAND = "envelope"
#: Commands in the changelog may have been renamed since.
DESCRIBED = [page for page in PAGES if page.name != "CHANGELOG.md"]


def command_lines(page: Path) -> Iterator[str]:
    """Yield what a page shows after `dagorama`."""
    blocks = [code for language, code in FENCED.findall(page.read_text()) if language in ("", "console")]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", "").splitlines()]
    for text in [*SPAN.findall(prose_of(page)), *lines]:
        found = re.match(r"dagorama ([a-z][^|#;&<]*)", text)
        if found and found[1] != NO_COMMAND:
            yield found[1]


def command_of(line: str) -> tuple[click.Command, list[str]]:
    """Return the command of a line, and the words after it; raises KeyError if there is no such command."""
    command: click.Command = main
    words = line.split()
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(command)
        found = command.get_command(context, words[0])
        if found is None and not command.invoke_without_command:
            raise KeyError(words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def mistakes(line: str) -> list[str]:
    try:
        command, words = command_of(line)
    except KeyError as error:
        return [f"no command {error}"]
    before_arguments = words[: words.index("--")] if "--" in words else words
    named = [option for word in before_arguments for option in OPTION.findall(word) if word.startswith("-")]
    return [f"{command.name} has no option {option}" for option in named if option not in options_of(command)]


@pytest.mark.parametrize("page", [page for page in DESCRIBED if any(command_lines(page))], ids=name_of)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    found = {line: mistakes(line) for line in command_lines(page)}
    assert {line: wrong for line, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("show 3f9a1c02/17 --arguments", []),
        ("shows 3f9a", ["no command 'shows'"]),
        ("show 3f9a --argument", ["show has no option --argument"]),
        ("queues pause emails", []),
        ("run flow:Shapes -- --verbose", []),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, expected: list[str]) -> None:
    assert mistakes(line) == expected
