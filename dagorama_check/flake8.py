"""The plugin for flake8, which analyzes one file at a time, and so knows no base classes from other files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Protocol

from dagorama_check.checking import check_source
from dagorama_check.codes import DEFAULT_CODES, RULES
from dagorama_check.reports import sentence_of


class Options(Protocol):
    """The part of flake8's manager of options that is used here."""

    def extend_default_ignore(self, codes: Sequence[str]) -> None: ...


class Checker:
    """Reports findings to flake8, which selects codes, and silences lines with `# noqa`."""

    name = "dagorama-check"
    version = version("dagorama")

    def __init__(self, tree: ast.Module, filename: str, lines: Sequence[str]) -> None:
        self._tree = tree
        self._path = filename
        self._text = "".join(lines)

    @classmethod
    def add_options(cls, options: Options) -> None:
        """Leave out the codes that must be selected."""
        options.extend_default_ignore(sorted(RULES.keys() - DEFAULT_CODES))

    def run(self) -> Iterator[tuple[int, int, str, type[Checker]]]:
        """Yield findings: the line from 1, the column from 0, and the text."""
        for finding in check_source(self._tree, self._path, self._text):
            text = f"{finding.code} {sentence_of(finding)}"
            yield finding.place.line, finding.place.column - 1, text, type(self)
