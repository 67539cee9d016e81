"""Take the pictures of docs/how-to/dashboard.md from a real run: `make pictures`.

Half of an instance of 20,000 nodes has run, and some nodes have failed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from playwright.sync_api import Browser, Page, sync_playwright

from dagorama import start, watch
from dagorama.client.connection import connection
from dagorama.models.state import State
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker
from tests.dashboard.browser.conftest import PROGRAMS
from tests.dashboard.pictured import Invoices, Thumbnails
from tests.dashboard.serving import dashboard

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
SLOTS = 8
#: The name that the pictures show for this machine.
MACHINE = "worker-a"
RENAME = """names => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const [from, to] of names) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""
TWO_FRAMES = (
    "document.fonts.ready.then(() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r))))"
)


class Run(NamedTuple):
    """The address of the pages, and what is on them."""

    url: str
    invoices: UUID
    failed: int  #: ordinal of a node that has failed


@contextmanager
def half_done_run() -> Iterator[Run]:
    """Serve a dashboard on which an instance is half done."""
    with tempfile.TemporaryDirectory() as folder, launch_broker(0) as broker, launch_workers(SLOTS):
        pipe = Path(folder) / "paper"
        os.mkfifo(pipe)
        for album, count in (("sea", 12), ("mountains", 240), ("lakes", 36)):
            for _ in watch(start(Thumbnails(), labels={"album": album})(count)[0]):
                pass
        instance, _ = start(Invoices(), id="invoices-2026-10", labels={"month": "2026-10"})("2026-10", f"{pipe}")
        half_done = (now for now in watch(instance) if len(now.reports) == SLOTS)
        next(half_done)
        id = instance.instance_id
        failed = next(
            node.ordinal for node in connection().list_nodes(id.bytes, states=[State.FAILED]) if node.failed_attempts
        )
        with dashboard(broker.host, broker.port, new_code=True) as pages:
            yield Run(pages.url, id, failed)


# --- pictures ---------------------------------------------------------------------------------------------


@contextmanager
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit("pictures need Chromium: install the package chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


def settle(page: Page) -> None:
    """Take the names of this machine and its folders out of the page, and wait until it is drawn."""
    page.evaluate(RENAME, [[f"{socket.gethostname()}:", f"{MACHINE}:"], [f"{ROOT}/", ""]])
    page.evaluate(TWO_FRAMES)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    os.environ.update(DAGORAMA_LOG_LEVEL="CRITICAL", DAGORAMA_LOGS_LEVEL="INFO")  # the pictures show what fails
    with half_done_run() as run, browser() as launched:
        page = launched.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce")
        page.route("**/live/**", lambda route: None)  # no update brings the names of this machine back
        instance = f"{run.url}/instances/{run.invoices}"
        take(page, run.url, "overview", ".tile")
        take(page, f"{instance}/{run.failed}", "node", ".record")
        for view in ("shape", "quilt", "timeline"):
            take(page, f"{instance}?view={view}", view, "#g-panel:not(.g-loading)")


def take(page: Page, address: str, name: str, awaited: str) -> None:
    """Take the picture of a whole page when it has an element."""
    page.goto(address)
    page.locator(awaited).first.wait_for()
    settle(page)
    page.screenshot(path=FOLDER / f"{name}.png", full_page=True)


if __name__ == "__main__":
    main()
