"""A real broker with workers, and its dashboard in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.dashboard.browser.graph_page import AXE
from tests.dashboard.serving import Dashboard, dashboard
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

# Other tests may use the processors meanwhile.
expect.set_options(timeout=20_000)


class Board(NamedTuple):
    """A broker and the address of its pages."""

    broker: LaunchedBroker
    served: Dashboard

    def at(self, path: str) -> str:
        return f"{self.served.url}{path}"


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    """Yield a broker whose two workers run what a test starts."""
    with (
        launch_broker(0) as broker,
        launch_workers(2),
        dashboard(broker.host, broker.port, new_code=True) as served,
    ):
        yield Board(broker, served)
    connection().close_stream()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page of 1280 by 800 pixels."""
    return new_page()


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with the page."""
    found = page.evaluate("axe.run()")["violations"]
    return [f"{each['id']}: {[node['target'] for node in each['nodes']]}: {each['help']}" for each in found]


def assert_well_made(page: Page) -> None:
    """Let axe look at a page, light and dark."""
    page.evaluate(AXE.read_text())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
