"""Large values of a store in memory: files in a temporary folder, and which nodes refer to them."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import rmtree

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import LargeRow
from dagorama_broker.store.large_values import LargeFiles
from dagorama_monitoring.process.temporary_folders import temporary_folder


class LargeValues:
    """Files that are created on first use, and references to them by node."""

    def __init__(self) -> None:
        self.by_node: dict[int, set[bytes]] = {}
        self.references: Counter[bytes] = Counter()  #: number of nodes by value
        self._files: LargeFiles | None = None

    # --- references -------------------------------------------------------------------------------

    def refer(self, row: LargeRow) -> None:
        """Note that a node refers to a value."""
        values = self.by_node.setdefault(row.key, set())
        if row.sha256 not in values:
            values.add(row.sha256)
            self.references[row.sha256] += 1

    def delete_of(self, node: int) -> None:
        """Delete the references of a node."""
        for sha256 in self.by_node.pop(node, ()):
            self.references[sha256] -= 1
            if not self.references[sha256]:
                del self.references[sha256]
                if self._files is not None:
                    self._files.unnamed([sha256])

    # --- files: see the methods of `Store` ----------------------------------------------------------

    def put(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        return self._made_files().put(chunks)

    def get(self, sha256: bytes) -> Iterator[bytes] | None:
        return self._files.get(sha256) if self._files else None

    def has(self, sha256: bytes) -> bool:
        return self._files is not None and self._files.take(sha256)

    def share(self) -> tuple[str, str]:
        return self._made_files().share()

    def keep(self, sha256: bytes, length: int, unfinished: str) -> bool:
        return self._files is not None and self._files.keep(sha256, length, unfinished)

    def collect(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        return self._files is not None and self._files.collect(grace, most, is_wanted, self.references.__contains__)

    def empty(self, grace: float) -> None:
        if self._files is not None:
            self._files.empty(grace)

    def _made_files(self) -> LargeFiles:
        if self._files is None:
            self._files = LargeFiles(self._temporary_folder())
        return self._files

    def _temporary_folder(self) -> Path:
        """Create a folder that is deleted with this object, at the interpreter's exit, or by the next broker."""
        try:
            folder, lock = temporary_folder("memory")
        except OSError as error:
            raise StoreError(f"no folder for large values: {error.strerror or error}") from error
        weakref.finalize(self, _remove, folder, lock)
        return folder


def _remove(folder: Path, lock: int) -> None:
    rmtree(folder, ignore_errors=True)
    os.close(lock)
