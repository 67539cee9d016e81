"""The graph section of a page, as tests use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page

from tests.dashboard.browser.made_up import MadeUpInstance
from tests.dashboard.browser.site import Site

AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"
GRAPH = "document.getElementById('graph').graph"


class GraphPage:
    def __init__(self, page: Page, site: Site) -> None:
        self.page, self.site = page, site

    def open(self, instance: MadeUpInstance, view: str = "shape", **query: object) -> GraphPage:
        """Show an instance, and wait until it is drawn."""
        self.site.instances["made-up"] = instance
        self.page.goto(f"{self.site.url}/instances/made-up?{urlencode({'view': view, **query})}")
        return self.drawn()

    def drawn(self) -> GraphPage:
        self.page.wait_for_selector("#g-panel:not(.g-loading)", state="attached")
        return self

    def show(self, view: str) -> GraphPage:
        self.page.get_by_role("tab", name=view).click()
        return self.drawn()

    def model(self, expression: str) -> Any:
        """Evaluate an expression of `graph`, the object behind the section, and `view`, the one that is shown."""
        return self.page.evaluate(f"(() => {{ const graph = {GRAPH}, view = graph.view; return {expression}; }})()")

    def until(self, expression: str) -> None:
        """Wait until such an expression is true."""
        self.page.wait_for_function(f"() => {{ const graph = {GRAPH}, view = graph.view; return {expression}; }}")

    def box(self, label: str) -> Locator:
        """Return the box of a function in the shape."""
        return self.page.locator(".g-box", has=self.page.get_by_text(label, exact=True))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def said(self) -> str:
        """Return what a screen reader was told last."""
        return self.page.locator("[aria-live=polite]").inner_text()

    def violations(self) -> list[str]:
        """Return what axe finds wrong with the page."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run()")["violations"]
        return [f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}" for each in found]
