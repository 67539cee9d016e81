"""Checks files: finds the files that may use dagorama, looks at them together, and leaves out silenced findings."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dagorama_check.analysis.project import Source, look_at
from dagorama_check.codes import DEFAULT_CODES, RULES, Finding, Place
from dagorama_check.comments import silenced_lines
from dagorama_check.files import File, Unreadable, collect, decoded_lines, relevant


class Result(NamedTuple):
    """The result of a check."""

    findings: list[Finding]
    unreadable: list[Unreadable]  #: files that could not be checked
    files: int  #: how many were asked for


def check_paths(
    paths: Iterable[str], *, select: Collection[str] = (), ignore: Collection[str] = (), exclude: Collection[str] = ()
) -> Result:
    """Check files and all Python files below folders.

    `select` and `ignore` are codes or beginnings of codes, `exclude` are patterns of paths to leave out. Raises
    ValueError for a code that does not exist, FileNotFoundError for a path that does not exist.
    """
    return check_files(collect(paths, exclude), chosen_codes(select, ignore))


def check_files(files: list[File], codes: Collection[str]) -> Result:
    """Check files together, so that classes of one may inherit from classes of another."""
    parsed, unreadable = relevant(files)
    findings: list[Finding] = []
    for file in _looked_at(parsed, unreadable):
        findings += _kept(file, codes)
    return Result(sorted(findings), unreadable, len(files))


def check_tree(tree: ast.Module, path: str, module: str = "") -> list[Finding]:
    """Return the findings of a module that is parsed already, also the ones that comments silence."""
    notes = _Notes(File(path, module, False, b"", True))
    look_at([Source(module, False, tree, notes)])
    return sorted(notes.findings)


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

    def __init__(self, file: File) -> None:
        self.file = file
        self.findings: set[Finding] = set()
        self._lines: list[str] | None = None

    def __call__(self, code: str, node: ast.expr | ast.stmt | ast.pattern, message: str) -> None:
        self.findings = {*self.findings, Finding(self.file.path, self._place(node), code, message)}

    def _place(self, node: ast.expr | ast.stmt | ast.pattern) -> Place:
        end_line, end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return Place(node.lineno, self._column(node.lineno, node.col_offset), end_line, self._column(end_line, end))

    def _column(self, line: int, offset: int) -> int:
        """Return the column of an offset, which Python counts in bytes of UTF-8."""
        if self._lines is None:
            self._lines = decoded_lines(self.file.source)
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


def _looked_at(parsed: list[tuple[File, ast.Module]], unreadable: list[Unreadable]) -> list[_Notes]:
    notes = [_Notes(file) for file, _ in parsed]
    sources = [
        Source(file.module, file.is_package, tree, note) for (file, tree), note in zip(parsed, notes, strict=True)
    ]
    look_at(sources)
    return notes


def _kept(notes: _Notes, codes: Collection[str]) -> list[Finding]:
    """Return the findings that were asked for and that no comment silences."""
    found = [finding for finding in notes.findings if finding.code in codes]
    if not found:
        return []
    silenced = silenced_lines(notes.file.source)
    return [finding for finding in found if not _is_silenced(finding, silenced)]


def _is_silenced(finding: Finding, silenced: dict[int, frozenset[str]]) -> bool:
    lines = range(finding.place.line, finding.place.end_line + 1)
    return any(code in silenced.get(line, ()) for line in lines for code in (finding.code, ""))
