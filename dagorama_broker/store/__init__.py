"""Where the broker's truth is kept; `open_store` picks the store that a URL names."""

from __future__ import annotations

from pathlib import Path

from dagorama_broker.errors import SettingsError
from dagorama_broker.store.protocol import Store

__all__ = ["Store", "open_store"]

_SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """The store of `sqlite:///relative.db`, `sqlite:////absolute.db` or `memory://`; its open() comes next.

    Raises SettingsError for any other URL.
    """
    if url == "memory://":
        from dagorama_broker.store.memory import MemoryStore

        return MemoryStore()
    path = url.removeprefix(_SQLITE)
    if path in (url, "", "/", ":memory:") or path.endswith("/"):
        raise SettingsError(
            f"store {url!r} is not one of sqlite:///relative.db, sqlite:////absolute/path.db, memory://"
        )
    from dagorama_broker.store.sqlite import SqliteStore

    try:
        return SqliteStore(Path(path).expanduser())
    except RuntimeError:
        raise SettingsError(f"store {url}: this user has no home folder, so give the path without ~") from None
