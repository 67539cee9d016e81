"""The one command: its subcommands, those of other packages, its completion, and old names that stay."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import click
import pytest

from dagorama.__main__ import COMMANDS, main
from tests.support.brokers import launch_broker
from tests.support.commands import ROOT, invoke, printed, process, refusal

OTHERS = {"backup", "broker", "check", "dashboard", "restore"}


def test_the_help_lists_every_command_and_each_has_a_help() -> None:
    text = printed("--help")
    listed = {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed == {*COMMANDS, *OTHERS}
    documented = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for name in sorted(listed):
        assert printed(name, "--help").startswith("Usage: ")
        assert f"`dagorama {name}" in documented


def test_every_command_that_prints_data_has_the_forms_of_output() -> None:
    without = {
        "backup",
        "broker",
        "cache",
        "completion",
        "config",
        "debug",
        "dev",
        "healthcheck",
        "keys",
        "pool",
        "tokens",
        "worker",
    }
    commands = [[name] for name in COMMANDS.keys() - without]
    for command in [
        *commands,
        ["keys", "list"],
        ["config", "show"],
        ["queues", "pause"],
        ["queues", "resume"],
        ["queues", "limits"],
        ["cache", "list"],
    ]:
        text = printed(*command, "--help")
        assert "-o, --output [table|json|jsonl" in text, command
        assert "--json" in text, command


def test_the_help_names_the_values_of_options_and_not_the_functions_that_check_them() -> None:
    unnamed = {
        f"{path} {option.opts[0]}"
        for path, command in commands_below(main, "dagorama")
        for option in command.params
        if isinstance(option, click.Option) and isinstance(option.type, click.types.FuncParamType)
        if option.metavar is None and not option.is_flag and option.type.name != "text"
    }
    assert unnamed == set()


def commands_below(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands_below(found, f"{path} {name}")


def test_the_broker_is_a_subcommand_although_the_client_never_imports_it() -> None:
    assert "--tls-client-ca" in printed("broker", "--help")
    ask = "import sys, dagorama.__main__; print([name for name in sys.modules if name.startswith('dagorama_broker')])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=ROOT).stdout == "[]\n"


def test_only_the_command_that_is_used_is_imported() -> None:
    ask = (
        "import sys; from dagorama.__main__ import main; main(['keys', 'new'], standalone_mode=False);"
        " print(sorted({'grpc', 'rich', 'asyncio', 'dagorama.definition'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.splitlines()[1] == "[]", ran.stderr


def test_a_command_of_another_package_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_package:command", "dagorama.commands")
    monkeypatch.setattr(
        "dagorama.__main__.entry_points", lambda **asked: EntryPoints([broken]).select(**asked)
    )  # fmt: skip
    assert "broken" in printed("--help")
    code, said = refusal("broken", "--anything")
    assert code == 1
    assert "cannot be loaded from no_such_package:command (ModuleNotFoundError" in said


def test_a_worker_is_a_subcommand_and_reload_needs_its_flag() -> None:
    assert "--reload" in printed("worker", "--help")
    code, said = refusal("worker", "--watch-dir", ".")
    assert (code, "--watch-dir needs --reload" in said) == (2, True)
    assert "--watch-pattern needs --reload" in refusal("worker", "--watch-pattern", "*.py")[1]
    with launch_broker(port=0):
        assert process("worker", "--exit-on-completion").returncode == 0


def test_the_version_is_printed() -> None:
    assert printed("--version").startswith("dagorama, version ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_is_a_script_for_the_shell(shell: str) -> None:
    text = printed("completion", shell)
    assert "_DAGORAMA_COMPLETE" in text
    assert invoke("completion", "tcsh").exit_code == 2
    if path := shutil.which(shell):
        assert subprocess.run([path, "-n"], input=text, text=True).returncode == 0


def test_commands_and_options_are_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = shutil.which("dagorama", path=str(Path(sys.executable).parent))
    assert command is not None, "the tests run in an environment where dagorama is installed"
    for words, expected in (("dagorama fai", "failures"), ("dagorama graph --for", "--format")):
        environment = {"_DAGORAMA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        ran = subprocess.run([command], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert expected in ran.stdout, ran.stderr
