"""The pages of the site as Markdown: pages of the repository with adapted links, and pages made from code."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getdoc, signature
from pathlib import Path
from shutil import copyfile
from typing import Any

import nbformat

import dagorama
import dagorama_testing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SAMPLES = ROOT / "samples"
#: Pages at the top of the repository that the site has too.
PROJECT = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
DIAGRAM = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"^::: (dagorama\w*)\.(\w+)$", re.MULTILINE)
TRANSITION = re.compile(r"^ +(\S+) --> (\S+): (.+)$", re.MULTILINE)


def write_pages(folder: Path) -> None:
    """Write every page of the site, and the other files that pages name, below `folder`."""
    for source in [*DOCS.rglob("*.md"), *(ROOT / name for name in PROJECT)]:
        write(folder / place_of(source), "".join(adapted(source, folder)))
    write(folder / "reference" / "names.md", page_of_names())
    write(folder / "samples.md", page_of_samples())


def write(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)


def place_of(source: Path) -> Path:
    """Return the place of a file of the repository on the site, relative to the folder of all pages."""
    if source == DOCS / "README.md":
        return Path("index.md")
    if source.is_relative_to(DOCS):
        return source.relative_to(DOCS)
    if source == SAMPLES or source.parent == SAMPLES:
        return Path("samples.md")
    if source.name in PROJECT:
        return Path("project", source.name.lower())
    return Path("files", source.relative_to(ROOT))


def adapted(source: Path, folder: Path) -> Iterator[str]:
    """Yield the parts of a page, of which those outside of code have their links adapted.

    A file that a link names, and that is no page, is copied to `folder`.
    """
    here = (folder / place_of(source)).parent

    def link(found: re.Match[str]) -> str:
        if "://" in found[2] or found[2].startswith("mailto:"):
            return found[0]
        named = (source.parent / found[2]).resolve()
        place = folder / place_of(named)
        if named.parent == SAMPLES:
            return f"{found[1]}{os.path.relpath(place, here)}#{named.name.replace('.', '')})"
        if named.suffix != ".md" and named.is_file():  # Zensical reports other links, which lead nowhere
            place.parent.mkdir(parents=True, exist_ok=True)
            copyfile(named, place)
        return f"{found[1]}{os.path.relpath(place, here)}{found[3]}"

    for part in FENCED.split(DIAGRAM.sub(as_table, source.read_text())):
        yield part if part.startswith("```") else LINK.sub(link, part)


def as_table(diagram: re.Match[str]) -> str:
    """Return a diagram of states as a table, because the program that draws it would be loaded from another host."""
    rows = [
        f"| {'(start)' if start == '[*]' else start} | {'(end)' if end == '[*]' else end} | {reason} |"
        for start, end, reason in TRANSITION.findall(diagram[1])
    ]
    return "\n".join(["| from | to | when |", "| --- | --- | --- |", *rows])


# --- pages that are made from code ------------------------------------------------------------------------


def page_of_names() -> str:
    """Return the page of all public names, whose texts mkdocstrings takes from the docstrings."""
    names: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in dagorama.__all__:
        names[kind_of(getattr(dagorama, name))].append(f"dagorama.{name}")
    names["Testing"] = [f"dagorama_testing.{name}" for name in dagorama_testing.__all__]
    parts = [
        "# Every name\n",
        "Everything that can be imported from `dagorama` and `dagorama_testing`, with its types, from the docstrings. "
        "[Python API](api.md) and [Testing](testing.md) are shorter, and sorted by purpose.\n",
    ]
    for title, found in names.items():
        parts.append(f"## {title}\n")
        parts += [f"::: {name}\n" for name in found]
    return "\n".join(parts)


def with_docstrings(page: str) -> str:
    """Return the page of all names for programs, which do not see what mkdocstrings makes of it."""

    def described(found: re.Match[str]) -> str:
        value = getattr(import_module(found[1]), found[2])
        try:
            call = f"{found[2]}{signature(value)}"
        except ValueError:  # an enumeration has none
            call = found[2]
        return f"### {found[2]}\n\n```\n{call}\n```\n\n{getdoc(value)}"

    return REFERENCE.sub(described, page)


def kind_of(value: object) -> str:
    if not isinstance(value, type):
        return "Functions"
    return "Errors" if issubclass(value, dagorama.DagoramaError) else "Classes"


def page_of_samples() -> str:
    """Return the page of all samples: what each says of itself, and its code."""
    parts = ["# Samples\n", "Whole programs, to run as they are. Each makes the data that it needs.\n"]
    for file in sorted(SAMPLES.glob("*.py")):
        source = file.read_text()
        said = ast.get_docstring(ast.parse(source)) or ""
        code = source.split('"""', 2)[2].strip()
        parts.append(f"## {file.name}\n\n{as_markdown(said)}\n\n```python\n{code}\n```\n")
    parts.append(f"## notebook.ipynb\n\n{notebook(SAMPLES / 'notebook.ipynb')}")
    return "\n".join(parts)


def as_markdown(docstring: str) -> str:
    """Return the docstring of a sample, with its command as code."""
    return re.sub(r"^Run: (.+)$", r"Run: `\1`", docstring, flags=re.MULTILINE)


def notebook(file: Path) -> str:
    """Return the cells of a notebook, with the headings two levels lower."""
    read: Any = nbformat.read  # it has no types
    cells = read(file, as_version=4).cells
    texts = [
        re.sub(r"^#", "###", cell.source) if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        for cell in cells
    ]
    return "\n\n".join(texts) + "\n"
