"""The `worker` command: ordinary mistakes give one clear sentence and exit code 2."""

import os
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from dagorama import settings
from dagorama.cli import worker
from dagorama.hot_reload import run_hot_reload_worker

FLAGS = [
    "--include-queue", "--exclude-queue", "--toleration", "--concurrency", "--import", "--only-imported",
    "--exit-on-completion", "--capture", "--grace", "--host", "--port", "--version", "--health-port", "--health-host",
    "--metrics-port", "--until", "--idle", "--lifetime", "--name",
]  # fmt: skip


@pytest.mark.parametrize("command", [worker, run_hot_reload_worker], ids=["worker", "worker-hot-reload"])
def test_both_commands_know_the_flags(command: object) -> None:
    result = CliRunner().invoke(command, ["--help"])  # type: ignore[arg-type]
    assert result.exit_code == 0
    assert all(flag in result.output for flag in FLAGS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--concurrency", "0"], "--concurrency"),
        (["--grace", "-1"], "--grace"),
        (["--grace", "nan"], "--grace"),
        (["--idle", "nan", "--until", "idle"], "--idle"),
        (["--idle", "0", "--until", "idle"], "--idle"),
        (["--idle", "5"], "--idle needs --until idle"),
        (["--idle", "5", "--until", "drained"], "--idle needs --until idle"),
        (["--until", "idle", "--exit-on-completion"], "contradicts --exit-on-completion"),
        (["--until", "later"], "--until"),
        (["--lifetime", "inf"], "--lifetime inf"),
        (["--lifetime", "0"], "--lifetime"),
        (["--host", "tcp://broker"], "--host is 'tcp://broker'"),
        (["--capture", "all"], "--capture"),
        (["--port", "0"], "--port"),
        (["--health-port", "65536"], "--health-port"),
        (["--health-host", "http://here"], "--health-host is 'http://here'"),
        (["--no-such-flag"], "--no-such-flag"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_flag_is_named(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(worker, arguments)
    assert result.exit_code == 2
    assert named in result.output


@pytest.mark.parametrize("command", [worker, run_hot_reload_worker], ids=["worker", "worker-hot-reload"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAGORAMA_PORT", "many"),
        ("DAGORAMA_LOG_LEVEL", "loud"),
        ("DAGORAMA_GRACE", "long"),
        ("DAGORAMA_SHARED_FILES", "perhaps"),
        ("DAGORAMA_LOCAL_SOCKET", "perhaps"),
        ("DAGORAMA_VALUES_PATIENCE", "-1"),
        ("DAGORAMA_VALUES_TRANSFER", "indirect"),
        ("DAGORAMA_TRACES", "perhaps"),
        ("DAGORAMA_LOGS", "some"),
        ("DAGORAMA_LOGS_LEVEL", "quiet"),
    ],
)
def test_a_wrong_setting_is_named(command: object, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(command, [])  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert name in result.output


@pytest.mark.parametrize("command", [worker, run_hot_reload_worker], ids=["worker", "worker-hot-reload"])
def test_both_commands_know_their_version(command: click.Command) -> None:
    result = CliRunner().invoke(command, ["--version"], prog_name="worker")
    assert result.output == f"worker, version {version('dagorama')}\n"


@pytest.mark.parametrize("command", [worker, run_hot_reload_worker], ids=["worker", "worker-hot-reload"])
def test_a_worker_that_could_run_nothing_is_refused(command: object) -> None:
    result = CliRunner().invoke(command, ["--only-imported"])  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert "--only-imported without --import would run nothing" in result.output


@pytest.mark.parametrize(
    ("descriptor", "said"),
    [("987", "--lifeline 987: it is not open"), ("file", "the end for reading of a pipe"), ("writing", "for reading")],
)
def test_a_lifeline_that_could_never_be_closed_is_refused(descriptor: str, said: str) -> None:
    reading, writing = os.pipe()
    with open(os.devnull) as file:
        numbers = {"file": file.fileno(), "writing": writing}
        result = CliRunner().invoke(worker, ["--lifeline", f"{numbers.get(descriptor, descriptor)}"])
    os.close(reading)
    os.close(writing)
    assert result.exit_code == 2
    assert said in result.output


def test_a_worker_that_restarts_has_no_lifeline() -> None:
    result = CliRunner().invoke(worker, ["--reload", "--lifeline", "0"])
    assert (result.exit_code, "--lifeline contradicts --reload" in result.output) == (2, True)


def test_a_folder_to_watch_has_to_exist() -> None:
    result = CliRunner().invoke(run_hot_reload_worker, ["--watch-dir", "/no/such/folder"])
    assert result.exit_code == 2
    assert "/no/such/folder" in result.output


def test_traces_without_their_package_are_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    settings._traces.cache_clear()
    monkeypatch.setenv("DAGORAMA_TRACES", "1")
    result = CliRunner().invoke(worker, [])
    settings._traces.cache_clear()
    assert result.exit_code == 2
    assert "DAGORAMA_TRACES is set and needs a package: pip install 'dagorama[otel]'" in result.output
