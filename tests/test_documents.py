"""README, docs and the other documents: links lead somewhere, nothing public is missing, programs run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dagorama
import dagorama_testing
from dagorama import errors
from dagorama_broker.scheduler import ReasonCode
from dagorama_broker.settings import Settings as BrokerSettings
from dagorama_testing import World
from tests.support.brokers import launch_broker
from tests.support.packages import PACKAGES, ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: A path below one of the folders of the repository.
PATH = re.compile(
    r"(?<![\w/.-])(?:dagorama|dagorama_broker|dagorama_check|dagorama_dashboard|dagorama_monitoring|dagorama_testing|docs|tests|samples|benchmarks|proto)/[\w./-]+"
)
VARIABLE = re.compile(r"DAGORAMA_[A-Z_]+[A-Z]")
WIDTH = 120
#: Its fragments are wrong on purpose; tests/check/test_documents.py has what is reported for them.
MISUSES = DOCS / "reference" / "checks.md"
#: What a page takes for granted if its fragments wait for results: a broker, and two workers.
WITH_WORKERS = """
from contextlib import ExitStack
from dagorama import launch_workers
running = ExitStack()
running.enter_context(launch_workers(2))
"""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(prose_of(page))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def is_broken(page: Path, target: str) -> bool:
    if target.startswith(("https://", "mailto:")):
        return False
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    return not found.exists() or bool(anchor and anchor not in anchors_of(found))


class Program(NamedTuple):
    """A Python block whose first line is a comment with a file's name, and the page that it is on."""

    page: Path
    name: str
    code: str

    def __str__(self) -> str:
        return self.name


def programs_of(page: Path) -> Iterator[Program]:
    for code in blocks_of(page):
        name = code.partition("\n")[0].removeprefix("# ")
        if name.endswith(".py"):
            yield Program(page, name, code)


def blocks_of(page: Path) -> list[str]:
    """Return the Python blocks of a page. Code for other tools is marked as `py`, because no test can run it."""
    return [code for language, code in FENCED.findall(page.read_text()) if language == "python"]


def fragments_of(page: Path) -> list[str]:
    """Return the Python blocks of a page that are no programs; together they are one story."""
    programs = {program.code for program in programs_of(page)}
    return [] if page == MISUSES else [code for code in blocks_of(page) if code not in programs]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert [target for target in LINK.findall(prose_of(page)) if is_broken(page, target)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_exists(page: Path) -> None:
    paths = {path.rstrip(".") for path in PATH.findall(page.read_text())}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def code() -> Iterator[Path]:
    for folder in (*PACKAGES, "proto", "tests", "benchmarks", "samples"):
        yield from (file for kind in ("*.py", "*.proto") for file in (ROOT / folder).rglob(kind))
    yield from (
        ROOT / name
        for name in ("Makefile", "pyproject.toml", "Dockerfile.broker", "Dockerfile.worker", "build_protobuf.sh")
    )
    yield from (ROOT / "deploy" / name for name in ("compose.yaml", "first-start.sh"))


def test_code_names_pages_of_the_documents_that_exist() -> None:
    named = {(name_of(file), page) for file in code() for page in re.findall(r"docs/[\w./-]+\.md", file.read_text())}
    assert {(file, page) for file, page in named if not (ROOT / page).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_not_too_wide(page: Path) -> None:
    lines = [line for line in page.read_text().splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_merge_is_unfinished(page: Path) -> None:
    marks = ("<<<<<<< ", ">>>>>>> ", "||||||| ")
    assert [line for line in page.read_text().splitlines() if line.startswith(marks)] == []


def test_the_index_lists_every_page() -> None:
    listed = {(DOCS / target.partition("#")[0]).resolve() for target in LINK.findall((DOCS / "README.md").read_text())}
    assert set(DOCS.rglob("*.md")) - listed == {DOCS / "README.md"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_public_name_is_in_the_api_reference() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    assert [name for name in dagorama.__all__ if not re.search(rf"`(?:await )?{name}\b", page)] == []


def test_every_public_name_of_the_testing_kit_is_in_its_reference() -> None:
    page = (DOCS / "reference" / "testing.md").read_text()
    methods = [name for name in vars(World) if not name.startswith("_") and name != "close"]
    names = [*dagorama_testing.__all__, *methods]
    assert [name for name in names if not re.search(rf"`(?:await )?{name}\b", page)] == []


def test_every_code_of_a_reason_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "commands.md").read_text()
    assert [code for code in ReasonCode if f"`{code}`" not in page] == []


def test_every_error_has_its_place_in_the_index() -> None:
    page = DOCS / "reference" / "errors.md"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    names = {kind.__name__ for kind in kinds if issubclass(kind, errors.DagoramaError)}
    assert {name for name in names if name.lower() not in anchors_of(page)} == set()
    trees = [FENCED.findall(page.read_text())[0][1], errors.__doc__ or ""]
    assert [names - set(re.findall(r"─ (\w+)", tree)) - {"DagoramaError"} for tree in trees] == [set(), set()]
    places = page.read_text().split("\n### ")[1:]
    assert [place.partition("\n")[0] for place in places if "*What to do:* " not in place] == []


def test_every_variable_of_the_environment_is_in_the_settings_and_every_setting_exists() -> None:
    modules = (
        *("dagorama/settings/__init__.py", "dagorama/settings/values.py"),
        *("dagorama_broker/settings.py", "dagorama_dashboard/settings.py"),
    )
    code = {name for module in modules for name in VARIABLE.findall((ROOT / module).read_text())}
    listed = set(re.findall(r"^\| `(DAGORAMA_\w+)`", (DOCS / "reference" / "settings.md").read_text(), re.MULTILINE))
    assert code - {"DAGORAMA_TLS"} == listed


def test_every_setting_of_the_broker_has_a_row() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    broker = page[page.index("## Broker") : page.index("## Dashboard")]
    assert len(re.findall(r"^\| `DAGORAMA_", broker, re.MULTILINE)) == len(fields(BrokerSettings))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_a_document_is_python(page: Path) -> None:
    for language, code in FENCED.findall(page.read_text()):
        if language in ("python", "py"):
            compile(code, name_of(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if fragments_of(page)], ids=name_of)
def test_the_fragments_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    code = "\n".join(fragments_of(page))
    if "resolve(" in code:
        with launch_broker(port=0):
            run(f"{WITH_WORKERS}\n{code}\nrunning.close()", tmp_path / "fragments.py")
        return
    namespace: dict[str, Any] = {"__name__": "fragments"}
    exec(compile(code, name_of(page), "exec"), namespace)
    for name, value in namespace.items():
        if name.startswith("test_"):
            value()


@pytest.mark.parametrize(
    "program",
    [program for page in PAGES if page.parent.name != "tutorial" for program in programs_of(page)],
    ids=str,
)
def test_a_complete_program_of_the_documents_runs(program: Program, tmp_path: Path) -> None:
    for other in programs_of(program.page):
        (tmp_path / other.name).write_text(other.code)
    run(program.code, tmp_path / program.name)


def run(code: str, file: Path) -> None:
    """Run a program, or the tests of a test file, in the folder of its file."""
    file.write_text(code)
    environment = {**os.environ, "HOME": str(file.parent)}
    as_tests = ["-m", "pytest", "-q", "-p", "no:hypothesispytest"] if file.name.startswith("test_") else []
    command = [sys.executable, *as_tests, file.name]
    done = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
