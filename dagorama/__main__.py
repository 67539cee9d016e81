"""The `dagorama` command, also as `python -m dagorama`.

The rule: a subcommand asks the broker and returns an `Answer`; it prints nothing itself. To add a group of subcommands,
write it in a module of `dagorama.cli`, and register it here.
"""

import click

from dagorama.cli.actions import cancel, rebind, retry
from dagorama.cli.base import report_errors
from dagorama.cli.credentials import keys, tokens
from dagorama.cli.delete import delete
from dagorama.cli.explain import explain
from dagorama.cli.failures import failures
from dagorama.cli.graph import graph
from dagorama.cli.inspect import list_, show
from dagorama.cli.overview import healthcheck, queues, status, unschedulable
from dagorama.cli.watch import watch
from dagorama.cli.workers import workers


class Commands(click.Group):
    """A group whose commands exit with the code of their error, also outside of calls to the broker."""

    def invoke(self, ctx: click.Context) -> object:
        with report_errors():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama")
def main() -> None:
    """Run programs, and inspect and manage the instances, nodes, queues and workers of a broker.

    Nodes are named INSTANCE/N, such as 3f9a1c02/17; the first digits of an id are enough. With -o json each command
    prints JSON instead of a table; docs/reference/commands.md lists its keys.

    Exit codes: 0 success, 1 failed or refused, 2 usage error, 69 no broker answers, 75 try again, 77 not permitted,
    78 invalid setting, 124 --timeout is over, 130 interrupted.
    """


for command in (
    list_,
    show,
    watch,
    explain,
    failures,
    graph,
    status,
    workers,
    queues,
    unschedulable,
    cancel,
    retry,
    rebind,
    delete,
    healthcheck,
    keys,
    tokens,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="dagorama")
