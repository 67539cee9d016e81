"""A store is copied to another database: the same records, and epochs and keys that go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from dagorama_broker.errors import SettingsError, StoreError
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.key_pauses import KeyPauseRow
from dagorama_broker.model.objects import NewObject
from dagorama_broker.model.rows import Changes, LabelRow, NameRow, RemovedRow, TurnRow
from dagorama_broker.store import Store, StoreOptions, copy_store, open_store
from dagorama_broker.store.sql.copying import TABLES
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.object_fixtures import bucket, object_server
from tests.support.postgres_server import new_schema
from tests.support.records import begun, completed, failed, graph, instance_row, node

__all__ = ["bucket", "object_server"]

Place = tuple[str, str]  # the URL of a store, and where its large values are


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Place]]:
    """Returns a new place of a kind of store."""
    with ExitStack() as stack:

        def make(kind: str) -> Place:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            if kind == "sqlite":
                return f"sqlite:///{folder}/store.sqlite3", f"file://{folder}/values"
            url = stack.enter_context(new_schema(request.getfixturevalue("postgres_url")))
            return url, f"file://{folder}/values"

        yield make


def opened(place: Place) -> closing[Store]:
    store = open_store(place[0], StoreOptions(place[1]))
    begun(store)
    return closing(store)


def filled(place: Place) -> Any:
    """Fill the store with rows of many tables; return what it answers about them."""
    with opened(place) as store:
        large, _ = store.put_large([b"large" * 100_000])
        changes = graph(*[node(key, *([key - 1] if key > 1 else [])) for key in range(1, 1_201)])
        changes.names, changes.labels = [NameRow(1, "work:Plain", "order-1", b"digest")], [LabelRow(1, "tenant", "7")]
        changes.turns = [TurnRow(1, "tenant-7", 3)]
        changes.key_pauses = [KeyPauseRow("few", "tenant-7", 0, 30.0, 20.0, 2)]
        store.commit(changes)
        store.commit(Changes(outcomes=[*map(completed, range(1, 1_100)), failed(1_100)]))
        store.commit(graph(node(2_000), instance=2, origin=b"origin-of-02"))
        store.commit(Changes(removed=[RemovedRow(2, instance_row(2).id, 5.0, False, 1.0)]))
        store.commit(
            Changes(workers_joined=[(bytes(16), "raw")], actions=[ActionRow(ActionKind.PAUSE, "ada", target="q")])
        )
        return answers(store), large


def answers(store: Store) -> Any:
    keys = list(range(1, 1_100))
    removed = store.removed(instance_row(2).id)
    return (
        store.live(), store.values(keys), store.arguments(keys), store.outcome(1_100), store.marks([1]), removed,
        store.secret, store.view.list_actions(1 << 40, 10), store.has_instance(instance_row(2).id),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "postgres"), ("postgres", "sqlite"), ("postgres", "postgres"), ("sqlite", "sqlite")],
)
def test_a_copy_answers_as_the_original(place: Callable[[str], Place], source: str, target: str) -> None:
    original, copy = place(source), place(target)
    before, large = filled(original)
    assert copy_store(original, copy) == 2_313
    store = open_store(copy[0], StoreOptions(copy[1]))
    store.open()
    epoch = store.take()
    with closing(store):
        assert epoch > 2  # the original was taken twice
        assert answers(store) == before
        assert b"".join(store.get_large(large) or ()) == b"large" * 100_000
        while store.sweep(1_000):
            pass
        store.commit(graph(node(3_000), instance=3, origin=b"origin-of-03"))
        store.commit(Changes(removed=[RemovedRow(3, instance_row(3).id, 5.0, False, 1.0)]))


def test_a_copy_goes_to_an_empty_store_only(place: Callable[[str], Place]) -> None:
    original, copy = place("sqlite"), place("sqlite")
    filled(original)
    filled(copy)
    with pytest.raises(StoreError, match="it is not empty: copy into a new file or another schema"):
        copy_store(original, copy)
    with opened(copy) as store:
        assert store.live().nodes


def test_a_damaged_row_ends_the_copy_and_no_broker_starts_with_it(place: Callable[[str], Place]) -> None:
    original, copy = place("sqlite"), place("postgres")
    filled(original)
    with opened(original) as store:
        assert isinstance(store, SqliteStore)
        store.transact(lambda connection: connection.execute("UPDATE nodes SET arguments = x'00' WHERE key = 700"))
    with pytest.raises(StoreError, match="row 700 of table nodes is damaged"):
        copy_store(original, copy)
    for attempt in (lambda: opened(copy), lambda: copy_store(original, copy)):
        with pytest.raises(StoreError, match="it holds an unfinished copy of another store"):
            attempt()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_that_a_broker_uses_is_not_copied(place: Callable[[str], Place], kind: str) -> None:
    original, copy = place(kind), place("sqlite")
    with opened(original), pytest.raises(StoreError, match=r"another broker|a broker uses it"):
        copy_store(original, copy)


def test_a_store_in_memory_is_not_copied(place: Callable[[str], Place]) -> None:
    with pytest.raises(SettingsError, match="is lost with its process"):
        copy_store(("memory://", ""), place("sqlite"))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_is_not_copied_to_itself(place: Callable[[str], Place], kind: str) -> None:
    original = place(kind)
    with pytest.raises(SettingsError, match="cannot be copied to itself"):
        copy_store(original, original)


def test_the_url_of_a_file_has_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the URL of a file has no parameters"):
        open_store(f"sqlite:///{tmp_path / 'a.sqlite3'}?mode=ro")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_that_is_not_there_is_not_copied(place: Callable[[str], Place], kind: str) -> None:
    original, copy = place(kind), place("sqlite")
    with pytest.raises(StoreError, match=r"there is no store|there is nothing to copy"):
        copy_store(original, copy)
    assert not Path(original[0].removeprefix("sqlite:///")).exists()


def test_every_table_is_copied(place: Callable[[str], Place]) -> None:
    with opened(place("sqlite")) as store:
        assert isinstance(store, SqliteStore)
        rows = store.transact(
            lambda connection: connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        )
    assert {name for (name,) in rows} == {table.name for table in TABLES} | {"meta", "secrets"}


def test_objects_stay_and_their_rows_are_copied(place: Callable[[str], Place], bucket: str) -> None:
    original, copy = place("sqlite")[0], place("postgres")[0]
    with opened((original, bucket)) as store:
        assert store.objects is not None
        row = store.objects.upload([b"large" * 100_000])
        store.name_objects([NewObject(row)])
        store.commit(graph(node(1)))
    copy_store((original, bucket), (copy, bucket + "/"))
    with opened((copy, bucket)) as store:
        assert store.objects is not None
        assert store.object_of(row.sha256) == row
        assert b"".join(store.objects.read(row) or ()) == b"large" * 100_000


def test_values_are_not_copied_between_files_and_objects(place: Callable[[str], Place], bucket: str) -> None:
    (original, folder), (copy, _) = place("sqlite"), place("sqlite")
    for source, target in ((folder, bucket), (bucket, ""), (bucket, f"{bucket}/other")):
        with pytest.raises(SettingsError, match="so name the same object store for both"):
            copy_store((original, source), (copy, target))
    assert not Path(copy.removeprefix("sqlite:///")).exists()
