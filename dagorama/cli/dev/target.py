"""The code for `dagorama dev`: finds the folder to import from, and the module, of a file, a module or a folder.

The rule: no code of the user is imported here. Workers do that, so that an error in it ends none of our processes.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

import click

from dagorama.cli.parameters import current_folder


class Target(NamedTuple):
    """The code of the user."""

    folder: Path  #: absolute; modules are imported from here, and `.dagorama` is here
    module: str = ""  #: the module to import at first; if empty, each is imported when a node needs it
    file: Path | None = None  #: the file, if one was named

    def __str__(self) -> str:
        return self.file.name if self.file is not None else self.module or self.folder.name or f"{self.folder}"


def find_target(text: str | None) -> Target:
    """Return what TARGET names. Raises UsageError."""
    here = Path(current_folder())
    if text is None:
        return Target(here)
    path = Path(text)
    if path.is_dir() and not (path / "__init__.py").is_file():
        return Target(path.resolve())
    if path.is_dir():
        return _file(path / "__init__.py")
    if path.is_file():
        return _file(path)
    if text.endswith(".py") or "/" in text:
        raise click.UsageError(f"there is no file {text}")
    return _module(text, here)


def _file(path: Path) -> Target:
    """Return the module of a file. A package is imported from the folder that its top folder is in."""
    file = path.resolve()
    if file.suffix != ".py":
        raise click.UsageError(f"{path} is not a Python file: its name must end with .py")
    folder, names = file.parent, [file.stem] if file.stem != "__init__" else []
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    for name in names:
        if not name.isidentifier():
            raise click.UsageError(f"{path} cannot be imported: {name!r} is not a name of a module")
    return Target(folder, ".".join(names), path)


def _module(text: str, here: Path) -> Target:
    name, colon, _ = text.partition(":")
    if colon and name:
        raise click.UsageError(f"{text!r} names a class, and a file or a module is expected: write {name}")
    if not all(part.isidentifier() for part in text.split(".")):
        raise click.UsageError(f"{text!r} is neither a file nor the name of a module")
    if missing := _missing(text, here):
        hint = f"; for the file, write {text}.py in its folder" if "." not in text else ""
        raise click.UsageError(f"there is no module {missing} in {here}, and none is installed{hint}")
    return Target(here, text)


def _missing(name: str, here: Path) -> str:
    """Return the part of a module's name that cannot be found, or an empty text, without importing anything."""
    path: list[str] | None = [f"{here}", *sys.path]
    known = ""
    for part in name.split("."):
        known = f"{known}.{part}" if known else part
        found: ModuleSpec | None = PathFinder.find_spec(known, path) if path is not None else None
        if found is None:
            return known
        places = found.submodule_search_locations
        path = list(places) if places is not None else None
    return ""
