"""The files to check: folders are walked, and files that cannot be about dagorama are left out without parsing them."""

from __future__ import annotations

import ast
import os
import re
import tokenize
import warnings
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

#: Folders that hold no code of the project; hidden folders and virtual environments are skipped too.
_SKIPPED = frozenset({"__pycache__", "__pypackages__", "build", "dist", "node_modules", "site-packages", "venv"})
_NAME = b"dagorama"
#: An import with all that it names; also one behind a semicolon, and some text that only looks like one.
_IMPORTS = re.compile(
    rb"(?:^|[;:])[ \t]*((?:from[ \t]*[\w. \t]+[ \t]import\b|import\b)[ \t]*(?:\([^)]*\)|(?:[^\n\\;]|\\\r?\n|\\.)*))",
    re.MULTILINE,
)
_WORDS = re.compile(rb"\w+")


class File(NamedTuple):
    """A file to check."""

    path: str  #: as it is shown
    module: str  #: the name under which others import it
    is_package: bool
    source: bytes
    is_named: bool  #: it is checked even if it does not name dagorama: it was asked for, not found in a folder


class Unreadable(NamedTuple):
    """A file that cannot be checked."""

    path: str
    reason: str  #: a sentence without a full stop


class Exclusion(NamedTuple):
    """Patterns of paths to leave out: of names, or of paths from a folder."""

    patterns: tuple[str, ...]
    folder: Path

    def matches(self, path: str) -> bool:
        """Return whether a pattern matches a path, or one of the folders in which it is, or the name of one of them."""
        inner = os.path.relpath(path, self.folder)
        parts = inner.split(os.sep)
        if parts[0] == os.pardir:
            return False
        starts = [os.sep.join(parts[: end + 1]) for end in range(len(parts))]
        patterns = [os.path.normpath(pattern) for pattern in self.patterns]
        return any(fnmatch(each, pattern) for pattern in patterns for each in (*starts, *parts))


def collect(paths: Iterable[str], exclude: Collection[Exclusion] = ()) -> tuple[list[File], list[Unreadable]]:
    """Read files, and all Python files below folders; return them, and the files that cannot be read."""
    files: list[File] = []
    unreadable: list[Unreadable] = []
    for path, is_named in dict(_found(paths, exclude)).items():
        try:
            files.append(made_file(path, Path(path).read_bytes(), is_named))
        except OSError as error:
            unreadable.append(Unreadable(shown(path), f"it cannot be read: {error.strerror or error}"))
    return files, unreadable


def _found(paths: Iterable[str], exclude: Collection[Exclusion]) -> Iterator[tuple[str, bool]]:
    for path in paths:
        if any(each.matches(path) for each in exclude):
            continue
        if os.path.isdir(path):
            yield from ((file, False) for file in sorted(_below(path, exclude)))
        else:
            yield os.path.normpath(path), True


def _below(folder: str, exclude: Collection[Exclusion]) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_skipped(where, name, exclude)]
        for name in names:
            path = os.path.normpath(os.path.join(where, name))
            if name.endswith((".py", ".pyi")) and not any(each.matches(path) for each in exclude):
                yield path


def _is_skipped(where: str, name: str, exclude: Collection[Exclusion]) -> bool:
    path = os.path.join(where, name)
    is_environment = os.path.exists(os.path.join(path, "pyvenv.cfg"))
    return name in _SKIPPED or name.startswith(".") or is_environment or any(each.matches(path) for each in exclude)


def made_file(path: str, source: bytes, is_named: bool = True) -> File:
    """Return a file with the name of its module: from the outermost folder that is a package, or its own."""
    full = Path(path).absolute()
    is_package = full.stem == "__init__"
    parts = [] if is_package else [full.stem]
    folder = full.parent
    while (folder / "__init__.py").exists() and folder.name:
        parts.insert(0, folder.name)
        folder = folder.parent
    return File(shown(path), ".".join(parts) or full.parent.name, is_package, source, is_named)


def shown(path: str) -> str:
    """Return a path with replacements for bytes that are not text in the encoding of the system."""
    return path.encode(errors="surrogateescape").decode(errors="replace")


# --- relevant files


def relevant(files: list[File]) -> tuple[list[tuple[File, ast.Module]], list[Unreadable]]:
    """Parse the files that may be about dagorama; return them, and the files that cannot be parsed.

    These are the files that name it, the files that import a module of these, and so on.
    """
    unreadable: list[Unreadable] = []
    parsed: list[tuple[File, ast.Module]] = []
    chosen = [file for file in files if file.is_named or _NAME in file.source]
    picked = set(map(id, chosen))
    left = [(file, _imported(file)) for file in files if id(file) not in picked]
    while chosen:
        wanted: set[bytes] = set()
        for file in chosen:
            tree = _parsed(file, unreadable)
            if tree is not None:
                parsed.append((file, tree))
                wanted.add(_last(file.module))
        chosen = [file for file, imported in left if not wanted.isdisjoint(imported)]
        left = [(file, imported) for file, imported in left if wanted.isdisjoint(imported)]
    return parsed, unreadable


def _imported(file: File) -> set[bytes]:
    """Return the words in the imports of a file, and for relative imports the names of the packages that it is in."""
    found: set[bytes] = set()
    for match in _IMPORTS.finditer(file.source):
        found.update(_WORDS.findall(match[1]))
        if match[1][4:].lstrip().startswith(b"."):
            found.update(part.encode() for part in file.module.split("."))
    return found


def _last(module: str) -> bytes:
    return module.rpartition(".")[2].encode()


def _parsed(file: File, unreadable: list[Unreadable]) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.source)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        unreadable.append(Unreadable(file.path, f"this is not valid Python: {where}{error.msg}"))
    except ValueError as error:
        unreadable.append(Unreadable(file.path, f"this is not valid Python: {error}"))
    except (MemoryError, RecursionError):
        unreadable.append(Unreadable(file.path, "it is nested too deeply to be parsed"))
    return None


def decoded(source: bytes) -> str:
    """Return the text of a file that can be parsed."""
    encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
    return source.decode(encoding, errors="replace")


def lines_of(text: str) -> list[str]:
    """Return the lines that Python counts, without their ends."""
    return re.split(r"\r\n|\r|\n", text)
