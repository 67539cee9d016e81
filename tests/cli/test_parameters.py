"""Options that are no numbers, no text or empty are refused, before anything happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagorama.__main__ import main
from dagorama.cli.credentials import new_token, record_of
from dagorama.runner import launch_workers
from dagorama_broker.rpc.tokens import read_tokens

#: What Python makes of the byte 0xff on the command line.
NO_TEXT = "\udcff"
FILTERS = [
    ["delete", "--completed", "--yes", "--definition"], ["list", "--definition"], ["list", "--id"],
    ["list", "--function"], ["list", "--error"], ["failures", "--definition"], ["show", "3f9a", "--function"],
    ["show", "3f9a", "--error"], ["show", "3f9a", "--worker"], ["logs", "3f9a", "--function"], ["watch", "--queue"],
]  # fmt: skip


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", FILTERS, ids=" ".join)
def test_an_empty_filter_does_not_stand_for_everything(command: list[str]) -> None:
    assert refusal(*command, "").endswith("it is empty; leave out the option to select everything.")


@pytest.mark.parametrize(
    "command",
    [
        ["worker", "--include-queue"], ["worker", "--exclude-queue"], ["worker", "--toleration"],
        ["worker", "--import"], ["demand", "--include-queue"], ["demand", "--toleration"],
        ["pool", "slurm", "--include-queue"], ["debug", "3f9a/1", "--import"], ["rebind", "flow:Shapes.f", "--hash"],
        ["rebind", "flow:Shapes.f", "--from-hash"], ["tokens", "new", "--role", "worker", "--queue"],
        ["tokens", "new", "--role", "worker", "--toleration"], ["worker", "--reload", "--watch-pattern"], ["dev"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_name_is_refused(command: list[str], empty: str) -> None:
    assert refusal(*command, empty).endswith(
        "it is empty; leave out the option, or set the variable that it comes from."
    )


@pytest.mark.parametrize(
    "command",
    [
        ["run", "flow:Shapes", "--timeout"], ["healthcheck", "--timeout"], ["demand", "--horizon"],
        ["demand", "--share"], ["worker", "--grace"], ["worker", "--lifetime"], ["pool", "slurm", "--share"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_nan_is_no_number(command: list[str]) -> None:
    assert refusal(*command, "nan").endswith("'nan' is not a number.")


@pytest.mark.parametrize("flag", ["--name", "--include-queue", "--exclude-queue", "--toleration", "--import"])
def test_a_worker_refuses_names_that_are_no_text(flag: str) -> None:
    assert refusal("worker", flag, NO_TEXT).endswith("is not valid UTF-8.")


def test_numbers_that_no_machine_has_are_refused() -> None:
    assert "is not in the range" in refusal("worker", "--lifeline", str(2**31))
    assert "is not in the range" in refusal("logs", "3f9a", "--attempt", str(2**32))


@pytest.mark.parametrize("name", ["\U0001f511 of caf\xe9", 'a "quoted" \\ name', "del \x7f, escape \x1b"])
def test_a_record_of_a_token_has_its_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.touch(mode=0o600)
    file.write_text(record_of(new_token(), "worker", name=name, queues=[name]))
    (token,) = read_tokens(file)
    assert (token.name, token.queues) == (name, frozenset({name}))


@pytest.mark.parametrize("option", ["--name", "--queue", "--toleration"])
def test_a_token_whose_record_would_be_unreadable_is_refused(option: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    said = refusal("tokens", "new", "--role", "worker", "--file", str(file), option, NO_TEXT)
    assert said.endswith("is not valid UTF-8.")
    assert not file.exists()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("dagorama run flow:Shapes", 2), ("dagorama worker", 2), ("dagorama worker --reload", 2), ("dagorama dev", 2),
        ("dagorama check", 2), ("dagorama_broker serve --port 0 --store sqlite:///relative.db", 78),
    ],
)  # fmt: skip
def test_a_deleted_current_folder_is_named(command: str, code: int, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["bash", "-c", f"cd {gone} && rmdir {gone} && {sys.executable} -P -m {command}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "the current folder was deleted" in done.stderr, done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_a_worker_has_no_more_children_than_a_broker_takes() -> None:
    assert "is not in the range 1<=x<=4096" in refusal("worker", "--concurrency", "4097")
    with pytest.raises(ValueError, match="at most 4,096, not 4097"), launch_workers(4097):
        pass
