"""The broker's stores; `open_store` returns the one for a URL."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dagorama_broker.environment import LEADER_LEASE, STORE_PATIENCE, without_password
from dagorama_broker.errors import SettingsError, StoreError
from dagorama_broker.store.protocol import Store

__all__ = ["Store", "StoreOptions", "accept_loss", "back_up", "copy_store", "open_store", "restore"]

log = logging.getLogger("dagorama_broker")

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
_FOLDER = "file://"
_OBJECTS = ("s3://", "gs://", "az://")


class StoreOptions(NamedTuple):
    """The options of a store besides its URL."""

    values: str = ""  #: where large values are: `file:///folder` or `s3://bucket/prefix`; empty: next to the file
    patience: float = STORE_PATIENCE  #: seconds for which a database that does not answer is tried again
    lease: float = LEADER_LEASE  #: seconds after which a broker that does not renew its lead may be replaced
    address: str = ""  #: where people find this broker
    is_signed: bool = True  #: whether clients send objects to the object store themselves, with signed URLs
    waits: bool = True  #: whether to wait for another broker to leave
    owns_values: bool = True  #: whether it may delete objects; otherwise another store has them, too


if TYPE_CHECKING:
    from dagorama_broker.store.objects.large_objects import LargeObjects
    from dagorama_broker.store.sqlite.backup import Backup
    from dagorama_broker.store.sqlite.store import SqliteStore


def accept_loss(url: str) -> str:
    """Make the next start accept a store that lost data; return what is lost, or an empty text.

    Raise SettingsError for a store that is not a file, StoreError if it cannot be used.
    """
    return _file_store(url, otherwise="it cannot have lost anything").accept_loss()


def back_up(url: str, target: Path, values: str = "") -> Backup:
    """Copy a store and its large values, also while a broker serves it; `values` is as in `StoreOptions`.

    Raise SettingsError for a store that is not a file, StoreError if it cannot be copied.
    """
    from dagorama_broker.store.sqlite.backup import back_up

    if url.startswith(_POSTGRES):
        raise SettingsError("a store in PostgreSQL is copied by PostgreSQL's own tools, such as pg_dump")
    store = _file_store(url, values, "there is nothing to copy")
    return back_up(store.path, store.values_folder, target)


def restore(copy: Path, url: str, values: str = "") -> Backup:
    """Make a store in a file out of a copy of one; `values` is as in `StoreOptions`.

    Raise SettingsError for a store that is not a file, StoreError if the copy is damaged or the store exists.
    """
    from dagorama_broker.store.sqlite.backup import restore

    store = _file_store(url, values, "this command cannot restore it")
    return restore(copy, store.path, store.values_folder)


def copy_store(source: tuple[str, str], target: tuple[str, str]) -> int:
    """Copy all records and large values of a store to an empty one; return how many rows.

    Each is its URL, and where its large values are, as in `StoreOptions`. No broker may use either of them. Raise
    SettingsError or StoreError; the target is then marked as unfinished.
    """
    from dagorama_broker.store.sql.copying import copy_records
    from dagorama_broker.store.sql.store import SqlStore
    from dagorama_broker.store.value_copies import copy_values

    _check_places(source[1], target[1])
    if source[0] == target[0]:
        raise SettingsError(f"store {without_password(source[0])} cannot be copied to itself: name another one as --to")
    stores = []
    for url, values in (source, target):
        store = open_store(url, StoreOptions(values, waits=False, owns_values=False))
        if not isinstance(store, SqlStore):
            raise SettingsError(f"store {without_password(url)} is lost with its process, so it cannot be copied")
        stores.append(store)
    if source[0].startswith(_SQLITE) and not _file_store(*source).path.is_file():
        raise StoreError(f"there is no store {source[0]}")
    with ExitStack() as stack:
        epochs = []
        for store in stores:
            stack.callback(store.close)
            store.open()
            epochs.append(store.take())
            store.keep(log.error)
        original, copy = stores
        copied = copy_records(original, copy, max(epochs))
        folders = [store.values_folder for store in stores]
        if folders[0] is not None and folders[1] is not None:
            copy_values(folders[0], folders[1])
    return copied


def _check_places(source: str, target: str) -> None:
    """Raise SettingsError unless both are folders, or the same place in an object store, where objects stay."""
    places = [url.rstrip("/") for url in (source, target)]
    if any(place.startswith(_OBJECTS) for place in places) and places[0] != places[1]:
        raise SettingsError(
            f"large values are not copied from {places[0] or 'a folder'} to {places[1] or 'a folder'}: objects are not"
            " moved, so name the same object store for both (--from-values, --to-values)"
        )


def _file_store(url: str, values: str = "", otherwise: str = "") -> SqliteStore:
    if not url.startswith(_SQLITE):
        raise SettingsError(f"store {without_password(url)} is not a file, so {otherwise}: pass --store sqlite:///PATH")
    from dagorama_broker.store.sqlite.store import SqliteStore

    store = open_store(url, StoreOptions(values))
    assert isinstance(store, SqliteStore)
    return store


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Return the store of a URL, not yet open.

    URLs are `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database` and `memory://`. Raise
    SettingsError for any other one, and if an option is missing or the package for it is not installed.
    """
    options = options or StoreOptions()
    values = _values_of(options)
    if url.startswith(_POSTGRES):
        return _database_store(url, values, options)
    if url == "memory://":
        if values is not None:
            raise SettingsError(
                "a store in memory is lost with its process, and its large values are, too: leave out --values"
                " (DAGORAMA_VALUES)"
            )
        from dagorama_broker.store.memory.store import MemoryStore

        return MemoryStore()
    path = url.removeprefix(_SQLITE)
    if "?" in path:
        raise SettingsError(f"store {url!r}: the URL of a file has no parameters, and the name of a store no `?`")
    if path in (url, "", "/", ":memory:") or path.endswith("/"):
        raise SettingsError(
            f"store {without_password(url)!r} is not one of sqlite:///relative.db, sqlite:////absolute/path.db,"
            " postgresql://user@host/database, memory://"
        )
    from dagorama_broker.store.sqlite.store import SqliteStore

    try:
        return SqliteStore(Path(path).expanduser(), values=values)
    except RuntimeError:
        raise SettingsError(f"store {url}: this user has no home folder; pass the path without ~") from None
    except FileNotFoundError:
        raise SettingsError(f"store {url}: the current folder was deleted; pass an absolute path") from None


def _values_of(options: StoreOptions) -> Path | LargeObjects | None:
    """Return the folder or the objects that an option names; None if it is empty."""
    url = options.values
    if not url:
        return None
    if url.startswith(_FOLDER):
        folder = Path(url.removeprefix(_FOLDER))
        if folder.is_absolute():
            return folder
    elif url.startswith(_OBJECTS):
        from dagorama_broker.store.objects.large_objects import LargeObjects

        return LargeObjects(url, options.is_signed, options.owns_values)
    raise SettingsError(
        f"--values {url} (DAGORAMA_VALUES) must be file:///absolute/path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or"
        " az://CONTAINER/PREFIX"
    )


def _database_store(url: str, values: Path | LargeObjects | None, options: StoreOptions) -> Store:
    try:
        from dagorama_broker.store.postgres.store import PostgresStore
    except ImportError as error:
        raise SettingsError(
            f"a store in PostgreSQL needs psycopg: pip install 'dagorama[postgres]' ({error})"
        ) from None
    if values is None:
        raise SettingsError(
            "the brokers of a store in PostgreSQL share its large values, in an object store or in a folder that all of"
            " them see: pass --values s3://BUCKET/PREFIX, or file:///absolute/path (DAGORAMA_VALUES)"
        )
    return PostgresStore(url, values, options.patience, options.lease, options.address, options.waits)
