"""The settings: the table `[tool.dagorama.check]` of pyproject.toml, and the options of the command."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dagorama_check.files import Exclusion

TABLE = "tool.dagorama.check"
_KEYS = ("exclude", "ignore", "select")


class BadSettings(Exception):
    """The table is not valid; the message names the file, and the key if it is one."""


class CheckSettings(NamedTuple):
    """The settings of a run: codes or beginnings of codes to report and to leave out, and paths to leave out."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[Exclusion, ...] = ()

    def with_options(self, select: tuple[str, ...], ignore: tuple[str, ...], exclude: tuple[str, ...]) -> CheckSettings:
        """Return the settings with options: `select` stands for itself, the others add to the settings."""
        here = (Exclusion(exclude, Path.cwd()),) if exclude else ()
        if select:
            return CheckSettings(select, ignore, (*self.exclude, *here))
        return CheckSettings(self.select, (*self.ignore, *ignore), (*self.exclude, *here))


def read_settings(folder: Path) -> CheckSettings:
    """Return the settings of the nearest pyproject.toml with the table, in this folder or above. Raises BadSettings."""
    for each in (folder, *folder.parents):
        path = each / "pyproject.toml"
        if path.is_file() and (table := _table(path)) is not None:
            exclude = _texts(path, table, "exclude")
            return CheckSettings(
                _texts(path, table, "select"), _texts(path, table, "ignore"),
                (Exclusion(exclude, each),) if exclude else (),
            )  # fmt: skip
    return CheckSettings()


def _table(path: Path) -> Mapping[str, object] | None:
    """Return the table of a file, None if it has none."""
    try:
        found: object = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{path} cannot be read: {error}") from None
    for name in TABLE.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is not None and not isinstance(found, Mapping):
        raise BadSettings(f"{path}: {TABLE} is not a table")
    if found is not None and (unknown := sorted(found.keys() - {*_KEYS})):
        raise BadSettings(f"{path}: {TABLE} has no key {unknown[0]!r}: its keys are {', '.join(_KEYS)}")
    return found


def _texts(path: Path, table: Mapping[str, object], key: str) -> tuple[str, ...]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise BadSettings(f"{path}: {TABLE}.{key} is not a list of texts")
    return tuple(found)
