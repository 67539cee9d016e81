"""The site builds without a warning, each of its links leads somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, flock
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import dagorama
import dagorama_testing
from tests.site import build as building
from tests.site.build import INSTALL, SiteNotBuilt, build, missing_tools, navigation
from tests.site.pages import DOCS, SAMPLES, write_pages

#: Packages whose names are on the page of all names.
PUBLIC = (dagorama, dagorama_testing)
#: Attributes by which a page loads a file.
LOADING = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}


class Parsed(HTMLParser):
    """The links of a page, the files that it loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        self.classes.update(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag in LOADING and LOADING[tag] in found:
            self.loaded.add(found[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} cannot be imported: {INSTALL}")
    # The processes of pytest-xdist share the folder above their own ones.
    shared = os.environ.get("PYTEST_XDIST_WORKER") is not None
    folder = tmp_path_factory.getbasetemp().parent / "docs" if shared else tmp_path_factory.mktemp("docs")
    with folder.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        return folder / "site" if (folder / "site" / "llms.txt").exists() else build(folder)


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Parsed]:
    # The page for addresses that do not exist has absolute links, because it is shown in any folder.
    return {page: Parsed(page) for page in site.rglob("*.html") if page.name != "404.html"}


def is_broken(page: Path, link: str, parsed: dict[Path, Parsed]) -> bool:
    parts = urlsplit(link)
    if parts.scheme:
        return False
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    anchor = unquote(parts.fragment)
    return not target.exists() or bool(anchor and target in parsed and anchor not in parsed[target].anchors)


@pytest.mark.slow
def test_every_link_and_every_file_of_a_page_is_on_the_site(parsed: dict[Path, Parsed]) -> None:
    broken = {
        (page.name, link)
        for page, found in parsed.items()
        for link in found.links | found.loaded
        if is_broken(page, link, parsed)
    }
    assert broken == set()


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(parsed: dict[Path, Parsed]) -> None:
    assert {link for found in parsed.values() for link in found.loaded if urlsplit(link).netloc} == set()
    # The theme would load the program that draws diagrams from elsewhere.
    assert [page for page, found in parsed.items() if "mermaid" in found.classes] == []


@pytest.mark.slow
def test_every_public_name_is_in_the_reference_and_every_sample_on_its_page(site: Path) -> None:
    names = Parsed(site / "reference" / "names.html").anchors
    assert {f"{package.__name__}.{name}" for package in PUBLIC for name in package.__all__} - names == set()
    samples = Parsed(site / "samples.html").anchors
    files = [file.name for kind in ("*.py", "*.ipynb") for file in SAMPLES.glob(kind)]
    assert [name for name in files if name.replace(".", "") not in samples] == []


@pytest.mark.slow
def test_programs_find_every_page_as_markdown(site: Path) -> None:
    listed, whole = ((site / name).read_text() for name in ("llms.txt", "llms-full.txt"))
    for page in sorted(site.rglob("*.html")):
        if page.name != "404.html":
            markdown = page.with_suffix(".md")
            assert f"]({markdown.relative_to(site)}): " in listed
            assert markdown.read_text() in whole


def test_every_page_is_in_the_navigation_once(tmp_path: Path) -> None:
    write_pages(tmp_path)
    pages = sorted(str(page.relative_to(tmp_path)) for page in tmp_path.rglob("*.md"))
    assert sorted(entry.page for entry in navigation()) == pages
    assert len(pages) > len(list(DOCS.rglob("*.md")))


def test_links_that_leave_the_documents_lead_to_pages_of_the_site(tmp_path: Path) -> None:
    write_pages(tmp_path)
    assert "](../project/contributing.md#where-things-go)" in (tmp_path / "explanation" / "architecture.md").read_text()
    assert "](../samples.md#crawlerpy)" in (tmp_path / "how-to" / "crawl.md").read_text()
    assert "](../files/proto/dagorama/api/broker.proto)" in (tmp_path / "reference" / "protocol.md").read_text()
    assert (tmp_path / "files" / "proto" / "dagorama" / "api" / "broker.proto").exists()
    assert "| QUEUED | CLAIMED | granted to a worker" in (tmp_path / "reference" / "states.md").read_text()


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "TOOLS", ("a_tool_that_is_missing",))
    with pytest.raises(SiteNotBuilt, match=r"^a_tool_that_is_missing cannot be imported: pip install"):
        build(tmp_path)


def test_every_docstring_of_a_public_name_says_something() -> None:
    names = [(package, name) for package in PUBLIC for name in package.__all__]
    assert [name for package, name in names if not getattr(package, name).__doc__] == []
