"""Build the site: write its pages, let Zensical make HTML of them, and add the Markdown for programs that read it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile, rmtree
from typing import NamedTuple

import yaml

from tests.site.pages import ROOT, with_docstrings, write_pages

CONFIGURATION = ROOT / "mkdocs.yml"
TOOLS = ("zensical", "mkdocstrings_handlers", "griffe_sphinx")
INSTALL = "pip install '.[dev]' installs the tools of the site"
#: An entry of the index: `- [Title](page.md): description.`
DESCRIBED = re.compile(r"^- \[[^\]]*\]\(([^)]+)\): (.+)$", re.MULTILINE)
#: The output of Zensical when there is nothing to say against the pages.
CLEAN = "No issues found"


class SiteNotBuilt(Exception):
    """The site cannot be built: a tool is missing, or a page has a fault. The text says which."""


class Entry(NamedTuple):
    """A page in the navigation."""

    section: str
    page: str


def missing_tools() -> list[str]:
    return [name for name in TOOLS if find_spec(name) is None]


def build(folder: Path) -> Path:
    """Build the site below `folder`, which is emptied before, and return the folder with the HTML.

    Raises SiteNotBuilt if a tool is missing, or if Zensical has a warning.
    """
    if missing := missing_tools():
        raise SiteNotBuilt(f"{', '.join(missing)} cannot be imported: {INSTALL}")
    rmtree(folder, ignore_errors=True)
    write_pages(folder / "pages")
    copyfile(CONFIGURATION, folder / CONFIGURATION.name)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", CONFIGURATION.name],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    if done.returncode or CLEAN not in said:
        raise SiteNotBuilt(said)
    write_for_programs(folder / "pages", folder / "site")
    return folder / "site"


# --- Markdown for programs: https://llmstxt.org -------------------------------------------------------------


def write_for_programs(pages: Path, site: Path) -> None:
    """Write the Markdown of each page next to its HTML, `llms.txt` (a list) and `llms-full.txt` (all of it)."""
    entries = list(navigation())
    texts = [with_docstrings((pages / entry.page).read_text()) for entry in entries]
    for entry, text in zip(entries, texts, strict=True):
        (site / entry.page).write_text(text)
    (site / "llms.txt").write_text("".join(listing(entries, pages)))
    (site / "llms-full.txt").write_text("\n\n".join(texts))


def navigation() -> Iterator[Entry]:
    """Yield the pages in the order of the navigation."""
    for item in yaml.safe_load(CONFIGURATION.read_text())["nav"]:
        for section, content in item.items():
            pages = [content] if isinstance(content, str) else content
            yield from (Entry(section, page) for page in pages)


def listing(entries: list[Entry], pages: Path) -> Iterator[str]:
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    yield f"# {configuration['site_name']}\n\n> {configuration['site_description']}.\n"
    index = dict(DESCRIBED.findall((pages / "index.md").read_text()))
    section = ""
    for entry in entries:
        if entry.section != section:
            section = entry.section
            yield f"\n## {section}\n\n"
        page = (pages / entry.page).read_text()
        yield f"- [{title_of(page)}]({entry.page}): {index.get(entry.page) or first_sentence(page)}\n"


def title_of(page: str) -> str:
    return page.partition("\n")[0].removeprefix("# ")


def first_sentence(page: str) -> str:
    """Return the first sentence of a page, as plain text."""
    paragraph = next(part for part in page.split("\n\n") if re.match(r"[\w`*\[]", part))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
    return re.split(r"(?<=\.)\s|:\s", plain)[0]
