"""A browser for the tests of this folder, and pages that fail their test if the browser complains.

The tests of this folder must be synchronous: while Playwright runs in a process, no other event loop may run there. The
browser is closed when pytest leaves the folder.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.dashboard.browser.graph_page import GraphPage
from tests.dashboard.browser.site import Site, serving

#: Milliseconds to wait for something on a page, on machines that do much else.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)
#: Names under which systems install Chromium.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this folder in this process; skips where Chromium is not installed."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed, which tests of pages need: `make chromium` tries to install it.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


def is_complaint(said: ConsoleMessage) -> bool:
    """Say whether a message is one of the page; that a test reads pixels of a canvas is none."""
    return said.type in ("error", "warning") and not said.text.startswith("Canvas2D: Multiple readback")


@pytest.fixture
def complaints() -> list[str]:
    """Errors, warnings and violations of the policy on the console of the browser; must be empty at the end."""
    return []


@pytest.fixture
def new_page(browser: Browser, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Open a page in a context of its own: `new_page(viewport=..., color_scheme="dark")`, as `Browser.new_context`."""
    contexts: list[BrowserContext] = []

    def opened(**options: Any) -> Page:
        settings = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="package")
def server() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def site(server: Site) -> Iterator[Site]:
    """A site without instances."""
    yield server
    server.reset()


@pytest.fixture
def graph(site: Site, new_page: Callable[..., Page]) -> GraphPage:
    """A page of 1280 by 800 pixels on which a test opens instances of its own."""
    return GraphPage(new_page(), site)
