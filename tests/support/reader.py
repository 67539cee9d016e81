"""Someone who follows a page of the tutorial: writes its files, runs its commands, and compares the outputs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from tests.support.commands import FORKED, forked

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```(python|ini|console)\n(.*?)^```$|^<!-- (the first version of|Ctrl-C in the terminal of) (\S+) -->$",
    re.MULTILINE | re.DOTALL,
)
ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
#: A command that needs no shell. It runs as a fork of a process with its imports, in a third of the time.
PLAIN = re.compile(r"dagorama(?: (?:[\w:./-]+|'[^']*'))+")
#: The installed command, which imports nothing of the current folder unless it looks there itself.
INSTALLED = FORKED._replace(has_folder=False)
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
        """Run a command and compare what it prints with the page, the two outputs one after the other."""
        if command.startswith(("worker", "dagorama-broker", "dagorama dev")):
            self.start(command, shown)
            return
        for theirs, ours in self.ids.items():
            command = command.replace(theirs, ours).replace(theirs[:8], ours[:8])
        if PLAIN.fullmatch(command):
            _, *arguments = shlex.split(command)
            done = forked(*arguments, program=INSTALLED, folder=self.folder, environment=self.environment)
        else:
            done = subprocess.run(
                command, shell=True, capture_output=True, text=True, cwd=self.folder, env=self.environment
            )
        self.compare(shown, done.stdout + done.stderr, done.stderr + done.stdout)

    def start(self, command: str, shown: str) -> None:
        log = self.folder / f"{command.split()[0]}.log"
        with log.open("w") as output:
            arguments = [f"{Path(sys.executable).parent}/{command.split()[0]}", *command.split()[1:]]
            self.running[command.split()[0]] = subprocess.Popen(
                arguments, stdout=output, stderr=output, cwd=self.folder, env=self.environment, text=True
            )
        self._await_lines(log, shown)

    def _await_lines(self, log: Path, shown: str) -> None:
        until = monotonic() + PATIENCE
        while not has_lines(shown, self.with_port(log.read_text())):
            assert monotonic() < until, f"the page shows\n{shown}\nand this is printed:\n{log.read_text()}"
            sleep(0.02)

    def kill(self, program: str) -> None:
        self.running[program].kill()
        self.running.pop(program).wait()

    def compare(self, shown: str, *printed: str) -> None:
        """Compare the page with an output, of which there are several orders, and learn the IDs in it."""
        for theirs, ours in zip(ID.finditer(shown), ID.finditer(printed[0]), strict=False):
            self.ids.setdefault(theirs[0], ours[0])
        assert any(matches(shown, self.as_on_the_page(each)) for each in printed), (
            f"the page shows\n{shown}\nand this is printed:\n{printed[0]}"
        )

    def as_on_the_page(self, printed: str) -> str:
        """Return an output with the port, and the first digits of the IDs, that the page has."""
        for theirs, ours in self.ids.items():
            printed = re.sub(rf"\b{ours[:8]}\b(?!-)", theirs[:8], printed)
        return self.with_port(printed)

    def with_port(self, printed: str) -> str:
        return printed.replace(f":{self.port}", ":50051")

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {"PATH": path, "DAGORAMA_PORT": str(self.port), "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)}
        # Plugins that the pages do not need, and that take most of the start of pytest.
        return {**os.environ, **ours, "PYTEST_ADDOPTS": "-p no:hypothesispytest -p no:anyio -p no:xdist"}


class Developer(Reader):
    """A reader who has `dagorama dev` in the other terminal: no variable names the broker."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 0)
        self._first: dict[str, str] = {}  #: the first version of each file
        self._log = folder / "dagorama.log"

    def write(self, code: str) -> None:
        """Write a file, and wait until the workers have restarted with it, as a person does."""
        name = code.partition("\n")[0].removeprefix("# ")
        if code == f"# {name}\n":
            code = self._first[name]
        is_new = name not in self._first
        self._first.setdefault(name, code)
        joined = self.joined
        super().write(code)
        while not is_new and self.joined == joined:
            sleep(0.02)

    @property
    def joined(self) -> int:
        """How often workers have connected."""
        return self._log.read_text().count("' joined: ") if self._log.exists() else 0

    def start(self, command: str, shown: str) -> None:
        super().start(command, shown)
        (address,) = re.findall(r"^broker +127\.0\.0\.1:(\d+),", self._log.read_text(), re.MULTILINE)
        self.port = int(address)

    def with_port(self, printed: str) -> str:
        ports = ((r"^(broker +127\.0\.0\.1:)\d+", "50051"), (r"^(dashboard +http://127\.0\.0\.1:)\d+", "8088"))
        for found, on_the_page in ports:
            printed = re.sub(found, rf"\g<1>{on_the_page}", printed, flags=re.MULTILINE)
        return printed

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in super().environment.items() if not name.startswith("DAGORAMA_")}
        # The pages say which ports there usually are. Here many tests run, so each takes a free one.
        return ours if self.running else {**ours, "DAGORAMA_PORT": "0", "DAGORAMA_DASHBOARD_PORT": "0"}

    def leave(self) -> None:
        """Press Ctrl-C in the first terminal."""
        for process in self.running.values():
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


class Operator(Reader):
    """A reader with a folder for each machine, and a terminal for each program that goes on running.

    A command that begins with `cd FOLDER;` and ends with such a program has a terminal of its own. All others are typed
    in one, in which `cd` and `set` have an effect on the following commands.
    """

    #: The ports of the page that are not the broker's.
    PORTS = "9464", "9465"
    STARTS = re.compile(r"cd (\S+); .*\b(?:worker(?: --\S+ \S+)?|serve; do sleep 1; done)$")

    def __init__(self, folder: Path, port: int, ports: Sequence[int]) -> None:
        super().__init__(folder, port)
        self._ports = dict(zip(self.PORTS, map(str, ports), strict=True))
        self._typed: list[str] = []

    def write(self, code: str) -> None:
        super().write(self._with_ours(code))

    def run(self, command: str, shown: str) -> None:
        if (found := self.STARTS.match(command)) is not None:
            self._open_terminal(found[1], self._with_ours(command))
            self._await_lines(self.folder / f"{found[1]}.log", shown)
        elif command.startswith(("cd ", "set ")) and not shown:
            self._typed.append(command)
        else:
            super().run("; ".join([*self._typed, self._with_ours(command)]), shown)

    def _open_terminal(self, name: str, command: str) -> None:
        with (self.folder / f"{name}.log").open("w") as output:
            self.running[name] = subprocess.Popen(
                command, shell=True, stdout=output, stderr=output, cwd=self.folder, env=self.environment, text=True,
                start_new_session=True,
            )  # fmt: skip

    def interrupt(self, name: str) -> None:
        """Press Ctrl-C in a terminal: all of its processes get the signal."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)

    def _with_ours(self, text: str) -> str:
        for theirs, ours in self._ports.items():
            text = text.replace(theirs, ours)
        return text

    def with_port(self, printed: str) -> str:
        for theirs, ours in self._ports.items():
            printed = printed.replace(f":{ours}", f":{theirs}")
        return super().with_port(printed)

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in super().environment.items() if not name.startswith("DAGORAMA_")}
        return {**ours, "DAGORAMA_PORT": str(self.port)}


def matches(shown: str, printed: str) -> bool:
    """Compare an output with the page, in which `...` stands for any text, IDs and times for any others."""
    for varying, same in ((ID, "ID"), (TIME, "TIME")):
        shown, printed = varying.sub(same, shown), varying.sub(same, printed)
    pattern = re.escape(shown.rstrip()).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, "\n".join(map(str.rstrip, printed.splitlines())), re.DOTALL) is not None


def has_lines(shown: str, printed: str) -> bool:
    """Look for each line of the page, for a program that goes on running and prints some lines in any order."""
    return all(any(matches(line, each) for each in printed.splitlines()) for line in shown.splitlines())


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Yield, of a page of the repository, the files, and the commands with their outputs, in the order of the page.

    A file whose only line is the comment with its name stands for its first version, and `^C NAME` for Ctrl-C in a
    terminal.
    """
    for kind, text, hidden, name in BLOCK.findall((ROOT / page).read_text()):
        if hidden.startswith("Ctrl-C"):
            yield f"^C {name}", ""
            continue
        if kind != "console":
            yield text or f"# {name}\n", ""
            continue
        for part in re.sub(r"\\\n *", "", text).split("$ ")[1:]:
            command, _, shown = part.partition("\n")
            yield f"$ {command}", shown
