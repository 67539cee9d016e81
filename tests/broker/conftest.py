"""A broker in the test's own process, on a free port."""

from collections.abc import AsyncIterator

import pytest_asyncio

from .raw import Served, serving


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served
