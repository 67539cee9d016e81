"""The broker's stores; `open_store` returns the one for a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dagorama_broker.errors import SettingsError
from dagorama_broker.store.protocol import Store

__all__ = ["Store", "accept_loss", "back_up", "open_store"]

_SQLITE = "sqlite:///"


if TYPE_CHECKING:
    from dagorama_broker.store.sqlite.backup import Backup
    from dagorama_broker.store.sqlite.store import SqliteStore


def accept_loss(url: str) -> str:
    """Make the next start accept a store that lost data; return what is lost, or an empty text.

    Raise SettingsError for a store that is not a file, StoreError if it cannot be used.
    """
    return _file_store(url, "it cannot have lost anything").accept_loss()


def back_up(url: str, target: Path) -> Backup:
    """Copy a store and its large values, also while a broker serves it.

    Raise SettingsError for a store that is not a file, StoreError if it cannot be copied.
    """
    from dagorama_broker.store.sqlite.backup import back_up

    return back_up(_file_store(url, "there is nothing to copy").path, target)


def _file_store(url: str, otherwise: str) -> SqliteStore:
    from dagorama_broker.store.sqlite.store import SqliteStore

    store = open_store(url)
    if not isinstance(store, SqliteStore):
        raise SettingsError(f"store {url} is not a file, so {otherwise}: pass --store sqlite:///PATH")
    return store


def open_store(url: str) -> Store:
    """Return the store of `sqlite:///relative.db`, `sqlite:////absolute.db` or `memory://`, not yet open.

    Raise SettingsError for any other URL.
    """
    if url == "memory://":
        from dagorama_broker.store.memory.store import MemoryStore

        return MemoryStore()
    path = url.removeprefix(_SQLITE)
    if path in (url, "", "/", ":memory:") or path.endswith("/"):
        raise SettingsError(
            f"store {url!r} is not one of sqlite:///relative.db, sqlite:////absolute/path.db, memory://"
        )
    from dagorama_broker.store.sqlite.store import SqliteStore

    try:
        return SqliteStore(Path(path).expanduser())
    except RuntimeError:
        raise SettingsError(f"store {url}: this user has no home folder; pass the path without ~") from None
