"""The tutorial: each of its files is written, each of its commands run, and each output compared with the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from time import monotonic, sleep

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-graph.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
PATIENCE = 30.0  #: seconds


@dataclass
class Reader:
    """Someone who follows the page in an empty folder."""

    folder: Path
    port: int
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)  #: of the page, and what they are here

    def write(self, code: str) -> None:
        (self.folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)

    def run(self, command: str, shown: str) -> None:
        """Run a command and compare what it prints, the two outputs one after the other, with the page."""
        if command.startswith(("worker", "dagorama-broker")):
            self.start(command, shown)
            return
        for theirs, ours in self.ids.items():
            command = command.replace(theirs, ours).replace(theirs[:8], ours[:8])
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, cwd=self.folder, env=self.environment
        )
        self.compare(shown, done.stdout + done.stderr)

    def start(self, command: str, shown: str) -> None:
        log = self.folder / f"{command.split()[0]}.log"
        with log.open("w") as output:
            arguments = [f"{Path(sys.executable).parent}/{command.split()[0]}", *command.split()[1:]]
            self.running[command.split()[0]] = subprocess.Popen(
                arguments, stdout=output, stderr=output, cwd=self.folder, env=self.environment, text=True
            )
        until = monotonic() + PATIENCE
        while not has_lines(shown, self.with_port(log.read_text())):
            assert monotonic() < until, f"the page shows\n{shown}\nand this is printed:\n{log.read_text()}"
            sleep(0.02)

    def kill(self, program: str) -> None:
        self.running[program].kill()
        self.running.pop(program).wait()

    def compare(self, shown: str, printed: str) -> None:
        assert matches(shown, self.with_port(printed)), f"the page shows\n{shown}\nand this is printed:\n{printed}"
        for theirs, ours in zip(ID.finditer(shown), ID.finditer(printed), strict=False):
            self.ids.setdefault(theirs[0], ours[0])

    def with_port(self, printed: str) -> str:
        return printed.replace(f":{self.port}", ":50051")

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {"PATH": path, "DAGORAMA_PORT": str(self.port), "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)}
        return {**os.environ, **ours}


def matches(shown: str, printed: str) -> bool:
    """Compare an output with the page, in which `...` stands for any text, IDs and times for any others."""
    for varying, same in ((ID, "ID"), (TIME, "TIME")):
        shown, printed = varying.sub(same, shown), varying.sub(same, printed)
    pattern = re.escape(shown.rstrip()).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, "\n".join(map(str.rstrip, printed.splitlines())), re.DOTALL) is not None


def has_lines(shown: str, printed: str) -> bool:
    """Look for each line of the page, for a program that goes on running and prints some lines in any order."""
    return all(any(matches(line, each) for each in printed.splitlines()) for line in shown.splitlines())


def steps() -> Iterator[tuple[str, str]]:
    """Yield the files, and the commands with their outputs, in the order of the page."""
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "python":
            yield text, ""
            continue
        for part in text.split("$ ")[1:]:
            command, _, shown = part.partition("\n")
            yield f"$ {command}", shown


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
    *before_the_restart, after_the_restart = list(steps())
    for text, shown in before_the_restart:
        if text.startswith("$ "):
            reader.run(text.removeprefix("$ "), shown)
        else:
            reader.write(text)
    reader.kill("dagorama-broker")
    reader.start("dagorama-broker serve --store sqlite:///first.sqlite3", "... serving on ...")
    reader.run(after_the_restart[0].removeprefix("$ "), after_the_restart[1])


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
