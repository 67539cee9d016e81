"""The `dagorama` command, also as `python -m dagorama`.

The rule: a subcommand is imported when it is used. To add one, write it in a module of `dagorama.cli`: it asks the
broker and returns an `Answer`. Then name it in `COMMANDS`. Other packages add theirs as entry points of the group
`dagorama.commands`; so the broker's commands are here although nothing of `dagorama` imports the broker.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click

from dagorama.cli.base import report_errors
from dagorama_monitoring.process.streams import failing_output, open_standard_streams

#: Where each command is defined.
COMMANDS = {
    "actions": "dagorama.cli.action_list:actions",
    "cache": "dagorama.cli.cache:cache",
    "cancel": "dagorama.cli.actions:cancel",
    "completion": "dagorama.__main__:completion",
    "config": "dagorama.cli.config:config",
    "debug": "dagorama.cli.debug:debug",
    "delete": "dagorama.cli.delete:delete",
    "demand": "dagorama.cli.demand:demand",
    "dev": "dagorama.cli.dev:dev",
    "events": "dagorama.cli.events:events",
    "explain": "dagorama.cli.explain:explain",
    "failures": "dagorama.cli.failures:failures",
    "graph": "dagorama.cli.graph:graph",
    "healthcheck": "dagorama.cli.overview:healthcheck",
    "keys": "dagorama.cli.credentials:keys",
    "list": "dagorama.cli.inspect:list_",
    "logs": "dagorama.cli.logs:logs",
    "pool": "dagorama.cli.pool:pool",
    "queues": "dagorama.cli.overview:queues",
    "rebind": "dagorama.cli.actions:rebind",
    "retry": "dagorama.cli.actions:retry",
    "run": "dagorama.cli.run:run",
    "schedules": "dagorama.cli.schedules:schedules",
    "send": "dagorama.cli.send:send",
    "show": "dagorama.cli.inspect:show",
    "stack": "dagorama.cli.logs:stack",
    "status": "dagorama.cli.overview:status",
    "tokens": "dagorama.cli.credentials:tokens",
    "unschedulable": "dagorama.cli.overview:unschedulable",
    "watch": "dagorama.cli.watch:watch",
    "worker": "dagorama.cli:worker",
    "workers": "dagorama.cli.workers:workers",
}
#: The group of entry points by which other packages add commands.
GROUP = "dagorama.commands"


class Commands(click.Group):
    """A group that imports a command when it is used, and exits with the code of an error that it raises."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        open_standard_streams()
        with failing_output():
            return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> object:
        with report_errors():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name].partition(":")
            found: click.Command = getattr(import_module(module), name)
            return found
        return next((_loaded(cmd_name) for _ in entry_points(group=GROUP, name=cmd_name)), None)


def _loaded(name: str) -> click.Command:
    """Return a command of another package; if that cannot be imported, a command that says so."""
    (entry, *_) = entry_points(group=GROUP, name=name)
    try:
        found: click.Command = entry.load()
    except Exception as error:
        text = f"cannot be loaded from {entry.value} ({type(error).__name__}: {error})"

        @click.command(name, help=f"This command {text}.", context_settings={"ignore_unknown_options": True})
        @click.argument("arguments", nargs=-1)
        def broken(arguments: tuple[str, ...]) -> None:
            raise click.ClickException(f"the command {name} {text}")

        return broken
    return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama")
def main() -> None:
    """Run programs, and inspect and manage the instances, nodes, queues and workers of a broker.

    Nodes are named INSTANCE/N, such as 3f9a1c02/17; the first digits of an ID are enough. With -o json each command
    prints JSON instead of a table; docs/reference/commands.md lists its keys.

    Exit codes: 0 success, 1 failed or refused, 2 usage error, 69 no broker answers, 75 try again, 77 not permitted,
    78 invalid setting, 124 --timeout is over, 130 interrupted.
    """


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    For bash and zsh, add `eval "$(dagorama completion bash)"` to ~/.bashrc or ~/.zshrc; for fish, save it as
    ~/.config/fish/completions/dagorama.fish.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this version of click has no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "dagorama", "_DAGORAMA_COMPLETE").source())


if __name__ == "__main__":
    main(prog_name="dagorama")
