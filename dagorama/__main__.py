"""The `dagorama` command, also as `python -m dagorama`.

The rule: a subcommand asks the broker and returns an `Answer`; it prints nothing itself. To add a group of subcommands,
write it in a module of `dagorama.cli`, and register it here.
"""

import click

from dagorama.cli.actions import cancel, rebind, retry
from dagorama.cli.credentials import keys, tokens
from dagorama.cli.explain import explain
from dagorama.cli.inspect import list_, show
from dagorama.cli.logs import logs, stack
from dagorama.cli.overview import queues, status, unschedulable, workers
from dagorama.cli.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama")
def main() -> None:
    """Inspect and manage the instances, nodes, queues and workers of a broker.

    With --json each command prints one JSON document instead of a table; docs/reference/commands.md lists its keys.
    Exit codes: 0 success, 1 refused or no answer, 2 usage error.
    """


for command in (
    list_,
    show,
    watch,
    logs,
    stack,
    explain,
    status,
    workers,
    queues,
    unschedulable,
    cancel,
    retry,
    rebind,
    keys,
    tokens,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="dagorama")
