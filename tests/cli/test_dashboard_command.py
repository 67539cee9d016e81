"""`dagorama dashboard`: says where it serves, ends in order, and refuses with one sentence what it must not do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dagorama.cli.exit_codes import ExitCode
from tests.support.commands import FORKED, forked

COMMAND = (sys.executable, "-m", "dagorama", "dashboard")
#: The command as a fork of a process with its imports, which take most of the time of a refusal.
REFUSING = FORKED._replace(imports=("dagorama.__main__", "dagorama_dashboard.cli", "dagorama_dashboard.server"))


@contextmanager
def started(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def refused(*options: str, **environment: str) -> str:
    """Return the one sentence with which the command ends."""
    return said_by(forked("dashboard", *options, program=REFUSING, environment={**os.environ, **environment}))


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that was refused, without the address of its documentation."""
    assert done.returncode == ExitCode.BAD_CONFIG, done
    assert done.stdout == ""
    line, *address = done.stderr.splitlines()
    assert address in ([], ["See docs/reference/errors.md#settingserror"])
    assert line.startswith("dagorama: ")
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_serves_and_ends_in_order(number: signal.Signals) -> None:
    with started("--http-port", "0") as process:
        line = first_line(process)
        assert line.startswith("dashboard: http://127.0.0.1:")
        connection = HTTPConnection(line.split("//")[1].strip(), timeout=60)
        connection.request("GET", "/login")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")


def test_the_variables_say_where(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with started(environment={"DAGORAMA_DASHBOARD_PORT": f"{port}", "DAGORAMA_DASHBOARD_BIND": "localhost"}) as process:
        assert first_line(process).endswith(f":{port}\n")


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in refused("--http-port", f"{taken.getsockname()[1]}")


def test_other_machines_are_refused_without_tls() -> None:
    assert "--tls-cert" in refused("--bind", "0.0.0.0", "--http-port", "0")


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    nothing = f"{tmp_path / 'nothing.pem'}"
    assert nothing in refused("--http-port", "0", "--tls-cert", nothing, "--tls-key", nothing)
    assert "go together" in refused("--http-port", "0", "--tls-cert", nothing)


@pytest.mark.parametrize("text", ["x", "-1", "70000", "8 0"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    assert "DAGORAMA_DASHBOARD_PORT" in refused(DAGORAMA_DASHBOARD_PORT=text)


@pytest.mark.parametrize("host", ["a b", "http://x", ""])
def test_a_name_that_is_none_is_refused(host: str) -> None:
    assert "--allowed-host" in refused("--http-port", "0", "--allowed-host", host)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    # A folder first on the path, in which a module of the extra cannot be found, stands for its absence.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'starlette' else find(name, package)\n"
    )
    done = subprocess.run(
        [*COMMAND, "--http-port", "0"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}"}
    )
    assert "pip install 'dagorama[dashboard]'" in said_by(done)
