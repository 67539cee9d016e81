"""The script that completes the commands and options of `dagorama` in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dagorama.cli.base import fail
from dagorama.cli.exit_codes import ExitCode


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    For bash and zsh, add `eval "$(dagorama completion bash)"` to ~/.bashrc or ~/.zshrc; for fish, save it as
    ~/.config/fish/completions/dagorama.fish.
    """
    found = get_completion_class(shell)
    root = click.get_current_context().find_root()
    if found is None:
        fail(f"this version of click has no completion for {shell}", ExitCode.REFUSED)
    click.echo(found(root.command, {}, "dagorama", "_DAGORAMA_COMPLETE").source())
