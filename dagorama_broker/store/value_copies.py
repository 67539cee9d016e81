"""Copies large values from one folder to another: as links if that is possible, otherwise checked."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from dagorama_broker.errors import StoreError
from dagorama_broker.store.folders import make_folder, sync_folder
from dagorama_broker.store.large_values import CHUNK
from dagorama_broker.store.value_files import names_below


def copy_values(source: Path, target: Path) -> None:
    """Link or copy the values that the target lacks. A value that is removed meanwhile is not needed."""
    folders = set[Path]()
    for name in sorted(set(names_below(source)) - set(names_below(target))):
        inner = Path(name.hex()[:2], name.hex())
        make_folder((target / inner).parent)
        try:
            _copy_value(source / inner, target / inner, name)
        except FileNotFoundError:
            continue
        folders.add((target / inner).parent)
    for folder in folders:
        sync_folder(folder)


def _copy_value(source: Path, target: Path, name: bytes) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        _copy_content(source, target, name)


def _copy_content(source: Path, target: Path, name: bytes) -> None:
    seen = sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file, open(source, "rb") as content:
        while chunk := content.read(CHUNK):
            seen.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if seen.digest() != name:
        raise StoreError(f"{source} is damaged: its content does not have the SHA-256 that is its name")
