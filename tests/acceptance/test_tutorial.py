"""The tutorial: each of its files is written, each of its commands run, and each output compared with the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from socket import create_server

import pytest

from tests.support.reader import PATIENCE, Developer, Operator, Reader, matches, steps

#: Pages whose reader has `dagorama dev` in the other terminal.
PAGES = [
    "README.md",
    "docs/tutorial/first-five-minutes.md",
    "docs/tutorial/dynamic-graphs.md",
    "docs/tutorial/failures.md",
]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reader = Reader(tmp_path, port)
    yield reader
    for process in reader.running.values():
        process.terminate()
    for process in reader.running.values():
        process.wait(PATIENCE)


def test_every_command_of_the_tutorial_prints_what_the_page_shows(reader: Reader) -> None:
    *before_the_restart, after_the_restart = list(steps("docs/tutorial/first-graph.md"))
    for text, shown in before_the_restart:
        if text.startswith("$ "):
            reader.run(text.removeprefix("$ "), shown)
        else:
            reader.write(text)
    reader.kill("dagorama-broker")
    reader.start("dagorama-broker serve --store sqlite:///first.sqlite3", "... serving on ...")
    reader.run(after_the_restart[0].removeprefix("$ "), after_the_restart[1])


@pytest.fixture
def developer(tmp_path: Path) -> Iterator[Developer]:
    developer = Developer(tmp_path)
    yield developer
    developer.leave()


def test_the_tutorial_on_tests_needs_nothing_that_runs(reader: Reader) -> None:
    for text, shown in steps("docs/tutorial/testing.md"):
        if text.startswith("$ "):
            reader.run(text.removeprefix("$ "), shown)
        else:
            reader.write(text)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with ExitStack() as stack:
        probes = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(3)]
        port, *others = [probe.getsockname()[1] for probe in probes]
    operator = Operator(tmp_path, port, others)
    yield operator
    for name in list(operator.running):
        operator.interrupt(name)


@pytest.mark.early
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (which("openssl") and which("curl")), reason="the page uses openssl and curl")
def test_the_tutorial_on_production_prints_what_the_page_shows(operator: Operator) -> None:
    for text, shown in steps("docs/tutorial/production.md"):
        if text.startswith("$ "):
            operator.run(text.removeprefix("$ "), shown)
        elif text.startswith("^C "):
            operator.interrupt(text.removeprefix("^C "))
        else:
            operator.write(text)
    on_the_broker = {path.name for path in (operator.folder / "broker").iterdir()}
    assert "signing.key" not in on_the_broker
    assert "pictures.py" not in on_the_broker


@pytest.mark.early
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_for_developers_prints_what_the_page_shows(developer: Developer, page: str) -> None:
    for text, shown in steps(page):
        if text.startswith("$ "):
            developer.run(text.removeprefix("$ "), shown)
        else:
            developer.write(text)


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("total 7\n", "total 7\n", True),
        ("total 7\n", "total 8\n", False),
        ("a ... b\n", "a long way to b\n", True),
        ("...\nend", "one\ntwo\nend\n", True),
        ("2026-11-26T10:02:11+00:00", "2027-01-01T00:00:00+00:00", True),
    ],
)
def test_three_dots_stand_for_any_text(shown: str, printed: str, expected: bool) -> None:
    assert matches(shown, printed) is expected
