"""Where the broker's truth is kept; `open_store` picks the store that a URL names."""

from __future__ import annotations

from pathlib import Path

from dagorama_broker.errors import SettingsError
from dagorama_broker.store.protocol import Store

__all__ = ["Store", "accept_loss", "open_store"]

_SQLITE = "sqlite:///"


def accept_loss(url: str) -> str:
    """Have the next start take a store without what it has lost; return what that is, or nothing if nothing is missing.

    Raise SettingsError for a store that is not kept in a file, StoreError if it cannot be used.
    """
    from dagorama_broker.store.sqlite.store import SqliteStore

    store = open_store(url)
    if not isinstance(store, SqliteStore):
        raise SettingsError(f"store {url} is not kept, so nothing of it can be lost: give --store sqlite:///PATH")
    return store.accept_loss()


def open_store(url: str) -> Store:
    """The store of `sqlite:///relative.db`, `sqlite:////absolute.db` or `memory://`; its open() comes next.

    Raises SettingsError for any other URL.
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
        raise SettingsError(f"store {url}: this user has no home folder, so give the path without ~") from None
