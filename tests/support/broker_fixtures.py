"""A broker in the test's own process, on a free port; and each of the stores, open and empty."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from dagorama_broker.store import Store, StoreOptions, open_store
from tests.support.postgres_server import NoServer, PostgresServer, new_schema, running_server
from tests.support.raw import Served, serving
from tests.support.records import begun

#: A server that is there already, as a URL; its user must be allowed to create schemas.
GIVEN = "DAGORAMA_TEST_POSTGRES"


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


@contextmanager
def server_or_skip(*options: str) -> Iterator[PostgresServer]:
    """Start a PostgreSQL server of the test's own, or skip the test if there is none to start."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server(*options))
        except NoServer as error:
            pytest.skip(f"{error}; or set {GIVEN} for most of the tests")
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server that runs as long as this process of pytest."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    with server_or_skip("fsync=off") as server:  # most tests prove nothing about the server's own durability
        yield f"{server.url}?unsafe=1"
