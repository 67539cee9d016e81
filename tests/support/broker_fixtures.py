"""A broker in the test's own process, on a free port; and each of the stores, open and empty."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from dagorama_broker.store import Store, StoreOptions, open_store
from tests.support.postgres_server import new_schema, postgres_url
from tests.support.raw import Served, serving
from tests.support.records import begun

__all__ = ["postgres_url", "served", "store"]


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with ExitStack() as stack:
        url, options = "memory://", StoreOptions()
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/broker.sqlite3"
        if request.param == "postgres":
            url = stack.enter_context(new_schema(request.getfixturevalue("postgres_url")))
            options = StoreOptions(f"file://{tmp_path}/values")
        store = open_store(url, options)
        begun(store)
        yield store
        store.close()
