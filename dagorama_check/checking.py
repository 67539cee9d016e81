"""Checks files: finds the files that may use dagorama, analyzes them together, and leaves out silenced findings."""

from __future__ import annotations

import ast
import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from re import Pattern
from typing import NamedTuple

from dagorama_check.analysis.project import Source, look_at
from dagorama_check.codes import DEFAULT_CODES, RULES, Finding, Place
from dagorama_check.comments import IGNORE, NOQA, silenced_lines
from dagorama_check.files import Exclusion, File, Unreadable, collect, decoded, lines_of, relevant


class Result(NamedTuple):
    """The result of a check."""

    findings: list[Finding]
    unreadable: list[Unreadable]  #: files that could not be checked
    files: int  #: the number of files that were checked


def check_paths(
    paths: Iterable[str], *, select: Collection[str] = (), ignore: Collection[str] = (),
    exclude: Collection[Exclusion] = (),
) -> Result:  # fmt: skip
    """Check files and all Python files below folders.

    `select` and `ignore` are codes or beginnings of codes. Raises ValueError for a code that does not exist.
    """
    codes = chosen_codes(select, ignore)
    files, unreadable = collect(paths, exclude)
    return check_files(files, codes, unreadable)


def check_files(files: list[File], codes: Collection[str], unreadable: Collection[Unreadable] = ()) -> Result:
    """Check files together, so that classes of one may inherit from classes of another.

    `unreadable` are files that are known to be so, for the result.
    """
    with _no_search_for_garbage():
        parsed, broken = relevant(files)
        findings = [finding for notes in _looked_at(parsed) for finding in _kept(notes, codes)]
    return Result(sorted(findings), sorted([*unreadable, *broken]), len(files) - len(broken))


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Keep syntax trees from being searched for garbage again and again, which takes half of the time of many files."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_source(tree: ast.Module, path: str, text: str) -> list[Finding]:
    """Return the findings of one module that is read and parsed already, for a tool that knows `# noqa` itself."""
    notes = _Notes(File(path, "", False, b"", True), text)
    look_at([Source("", False, tree, notes)])
    return _kept(notes, RULES, (IGNORE,))


def chosen_codes(select: Collection[str], ignore: Collection[str]) -> frozenset[str]:
    """Return the codes to report: those selected, or else the default ones, without the ignored ones."""
    chosen = _matching(select) if select else DEFAULT_CODES
    return chosen - _matching(ignore)


def _matching(prefixes: Collection[str]) -> frozenset[str]:
    for prefix in prefixes:
        if not prefix or not any(code.startswith(prefix.upper()) for code in RULES):
            raise ValueError(f"there is no code {prefix!r}: the codes are DAG001 to DAG{len(RULES):03}")
    return frozenset(code for code in RULES for prefix in prefixes if code.startswith(prefix.upper()))


class _Notes:
    """The findings of one file, each once."""

    def __init__(self, file: File, text: str | None = None) -> None:
        self.file = file
        self.findings: set[Finding] = set()
        self._text = text  #: of the file, if it was decoded elsewhere

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file, without their ends."""
        return lines_of(decoded(self.file.source) if self._text is None else self._text)

    def __call__(self, code: str, node: ast.expr | ast.stmt | ast.pattern, message: str) -> None:
        self.findings.add(Finding(self.file.path, self._place(node), code, message))

    def _place(self, node: ast.expr | ast.stmt | ast.pattern) -> Place:
        end_line, end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return Place(node.lineno, self._column(node.lineno, node.col_offset), end_line, self._column(end_line, end))

    def _column(self, line: int, offset: int) -> int:
        """Return the column of an offset, which Python counts in bytes of UTF-8."""
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


def _looked_at(parsed: list[tuple[File, ast.Module]]) -> list[_Notes]:
    notes = [_Notes(file) for file, _ in parsed]
    sources = [
        Source(file.module, file.is_package, tree, note) for (file, tree), note in zip(parsed, notes, strict=True)
    ]
    look_at(sources)
    return notes


def _kept(notes: _Notes, codes: Collection[str], comments: Collection[Pattern[str]] = (IGNORE, NOQA)) -> list[Finding]:
    """Return the findings that were asked for and that no comment silences."""
    found = [finding for finding in notes.findings if finding.code in codes]
    if not found:
        return []
    silenced = silenced_lines(notes.lines, comments)
    return sorted(finding for finding in found if not _is_silenced(finding, silenced))


def _is_silenced(finding: Finding, silenced: dict[int, frozenset[str]]) -> bool:
    lines = range(finding.place.line, finding.place.end_line + 1)
    return any(code in silenced.get(line, ()) for line in lines for code in (finding.code, ""))
