"""A broker in the test's own process, on a free port; and each of the stores, open and empty."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dagorama_broker.store import Store, open_store
from tests.support.raw import Served, serving
from tests.support.records import begun


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/broker.sqlite3"
    store = open_store(url)
    begun(store)
    yield store
    store.close()
