"""Exit codes: each has one meaning, for every command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from dagorama import watch
from dagorama.cli.credentials import new_token, record_of
from dagorama.cli.exit_codes import ExitCode, exit_code
from dagorama.client.connection import Connection, connection
from dagorama.errors import (
    AccessDenied,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    NodeFailed,
    NotFound,
    SettingsError,
)
from tests.support.brokers import launch_broker
from tests.support.command_flows import Shapes
from tests.support.commands import ROOT, WAIT, invoke, process, refusal

FLOWS = "tests.support.command_flows"


def overloaded(retry_after: float | None) -> BrokerOverloaded:
    error = BrokerOverloaded("full")
    error.retry_after = retry_after
    return error


@pytest.mark.parametrize(("error", "code"), [
    (NotFound("no"), 1), (BrokerError("no"), 1), (NodeFailed("f"), 1), (BrokerUnavailable("no"), 69),
    (overloaded(0.5), 75), (overloaded(None), 1), (AccessDenied("no"), 77), (SettingsError("no"), 78),
    (TimeoutError("late"), 124), (KeyboardInterrupt(), 130),
])  # fmt: skip
def test_each_error_has_one_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_the_documented_codes_are_the_ones_that_there_are() -> None:
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    codes = text.partition("### Exit codes")[2].partition("\n#")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)} == set(ExitCode)


def test_a_command_that_succeeds_a_refused_one_and_a_misspelled_one_differ() -> None:
    with launch_broker(port=0):
        assert invoke("list").exit_code == 0
        assert refusal("show", UUID(int=1))[0] == 1
        assert refusal("lost")[0] == 2
        assert refusal("list", "--limit", "many")[0] == 2
        assert refusal("list", "--json", "-o", "table")[0] == 2
        assert refusal("cancel", "abcd", "-o", "name")[0] == 2, "it has no names, and asks no broker"


@pytest.mark.parametrize(
    "arguments", [("schedules", "pause", "\udcff"), ("queues", "pause", "\udcff"), ("list", "--label", "a=\udcff")]
)
def test_an_argument_that_is_no_text_is_a_wrong_argument(arguments: tuple[str, ...]) -> None:
    with launch_broker(port=0):
        result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == "dagorama: '\\udcff' is not valid UTF-8, so it cannot be sent to a broker\n"


def test_without_a_broker_the_code_says_that_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.connection.PATIENCE", 0.1)
    assert refusal("status", "--port", 1)[0] == 69


@pytest.mark.slow
def test_a_full_broker_asks_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with launch_broker(port=0, environment={"DAGORAMA_MAX_STREAMS": "1"}):
        instance, _ = Shapes()(3)
        connection().close_stream()
        watching = watch(instance)
        states = iter(watching)
        next(states)  # the only call that may be open
        monkeypatch.setattr(Connection._ask, "__defaults__", (4.0,))  # the usual deadline of a call is 30 seconds
        code, said = refusal("list")
        watching.close()
        assert (code, "calls are open" in said) == (75, True), said


def test_a_caller_without_the_role_is_not_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, tokens = new_token(), tmp_path / "tokens.toml"
    tokens.write_text(record_of(token, "reader"))
    tokens.chmod(0o600)
    with launch_broker(port=0, environment={"DAGORAMA_TOKENS_FILE": str(tokens)}):
        assert refusal("list")[0] == 77
        monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", token)
        assert invoke("list").exit_code == 0
        assert refusal("cancel", UUID(int=1))[0] == 77


def test_an_invalid_setting_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "many")
    for command in (("list",), ("config", "show"), ("broker",), ("watch", "abcd"), ("run", f"{FLOWS}:Shapes", 1)):
        code, said = refusal(*command)
        assert (code, "DAGORAMA_PORT is 'many'" in said) == (78, True), command
    assert process("broker").returncode == 78
    assert process("worker").returncode == 2, "workers had their own codes before"


def test_a_wait_that_takes_too_long_has_the_code_of_timeout() -> None:
    with launch_broker(port=0):
        code, said = refusal("run", f"{FLOWS}:Shapes", 3, "--timeout", 0.2)
        assert code == 124
        assert "no result after 0.2 s: 1 queued node" in said
        assert "no worker is connected" in said


@pytest.mark.parametrize("command", ["watch", "run"])
def test_an_interrupted_command_has_the_code_of_the_shell(command: str) -> None:
    with launch_broker(port=0):
        arguments = ["run", f"{FLOWS}:Shapes", "3"]
        if command == "watch":
            arguments = ["watch", str(Shapes()(3)[0].instance_id), "-o", "jsonl"]
        running = subprocess.Popen(
            [sys.executable, "-m", "dagorama", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            stream = running.stdout if command == "watch" else running.stderr
            assert stream is not None
            # It waits, and has imported what it needs: Python ends by the signal if that interrupted an import.
            assert any("schema_version" in line or "known so far" in line for line in stream)
            running.send_signal(signal.SIGINT)
            said = running.communicate(timeout=WAIT)[1]
        finally:
            running.kill()
        assert (running.returncode, "Traceback" in said) == (130, False), said
