"""Read the prose of a file: docstrings, comments and messages of Python, comments of protobuf, text of Markdown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCSTRING, COMMENT, MESSAGE, PAGE = "docstring", "comment", "message", "page"

GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
DIRECTIVE = re.compile(r"\s*(noqa|type:|fmt:|pragma|pyright:|ruff:|!|-{3,}|={3,})")
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|ALTER|DROP|PRAGMA|REPLACE|FROM|WHERE)\b")
CODE_BLOCK = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"``[^`]+``|`[^`\n]+(?:\n[^`\n]+)?`")
LINK_TARGET = re.compile(r"(?<=\])\([^)\s]+\)")


@dataclass(frozen=True)
class Text:
    """One piece of prose and its place."""

    path: Path
    kind: str
    line: int  #: of its first character
    words: str
    source: tuple[str, ...] = ()  #: the source lines of a message, which may be cut differently from the message

    def line_at(self, start: int, phrase: str) -> int:
        """Return the line of the character at `start`."""
        if not self.source:
            return self.line + self.words.count("\n", 0, start)
        return self.line + next((at for at, line in enumerate(self.source) if phrase in line), 0)


def texts_below(paths: Iterable[Path]) -> Iterator[Text]:
    """Yield the prose of these files, and of all files in these folders."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in READERS and not GENERATED.search(file.name):
                yield from READERS[file.suffix](file, file.read_text(encoding="utf-8"))


def _without_code(words: str) -> str:
    """Replace code by blanks or crosses, so that only prose is left and every character stays in its place."""
    words = CODE_BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), words)
    words = LINK_TARGET.sub(lambda match: " " * len(match[0]), words)
    return CODE.sub(lambda match: re.sub(r"[^\n`]", "x", match[0]), words)


def _page(path: Path, source: str) -> Iterator[Text]:
    yield Text(path, PAGE, 1, _without_code(source))


def _protobuf(path: Path, source: str) -> Iterator[Text]:
    lines = source.splitlines()
    yield from _blocks(path, ((at, line.index("//"), line) for at, line in enumerate(lines, 1) if "//" in line), 2)


def _python(path: Path, source: str) -> Iterator[Text]:
    tree, lines = ast.parse(source), source.splitlines()
    docstrings = {id(node) for node in _docstrings(tree)}
    strings = list(_strings(tree))
    for node in strings:
        words = _words_of(node)
        if id(node) in docstrings:
            yield Text(path, DOCSTRING, node.lineno, _without_code(words))
        elif _is_message(words):
            source_lines = tuple(lines[node.lineno - 1 : node.end_lineno])
            yield Text(path, MESSAGE, node.lineno, _without_code(words), source_lines)
    yield from _blocks(path, _comments(lines, strings), 1)


READERS = {".py": _python, ".md": _page, ".proto": _protobuf}


def _docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                yield first.value


def _strings(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield texts and bytes, and formatted texts as one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield child
        elif isinstance(child, ast.Constant):
            if isinstance(child.value, str | bytes):
                yield child
        else:
            yield from _strings(child)


def _words_of(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)


def _is_message(words: str) -> bool:
    return words.count(" ") >= 2 and not SQL.match(words)


def _comments(lines: list[str], strings: list[ast.Constant | ast.JoinedStr]) -> Iterator[tuple[int, int, str]]:
    """Yield line, column and text of comments: of the signs `#` that are not in a string, the first of each line."""
    within: dict[int, list[tuple[int, int]]] = {}
    for node in strings:
        for at in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            begin = node.col_offset if at == node.lineno else 0
            within.setdefault(at, []).append((begin, (node.end_col_offset or 0) if at == node.end_lineno else 1 << 30))
    for at, line in enumerate(lines, 1):
        for match in re.finditer("#", line):
            column = len(line[: match.start()].encode())
            if not any(begin <= column < end for begin, end in within.get(at, ())):
                yield at, match.start(), line
                break


def _blocks(path: Path, comments: Iterable[tuple[int, int, str]], sign: int) -> Iterator[Text]:
    """Join comments that fill whole lines one below the other."""
    begin, words, column_of_block = 0, list[str](), -1
    for at, column, line in comments:
        comment = line[column + sign :].removeprefix(":")
        whole = not line[:column].strip()
        if words and not (whole and column == column_of_block and at == begin + len(words)):
            yield Text(path, COMMENT, begin, _without_code("\n".join(words)))
            words = []
        if not DIRECTIVE.match(comment):
            begin, column_of_block = (begin, column_of_block) if words else (at, column if whole else -1)
            words.append(comment)
    if words:
        yield Text(path, COMMENT, begin, _without_code("\n".join(words)))
