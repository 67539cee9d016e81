"""`dagorama`: what a person looks at and does. The rule: a command asks, answers with an `Answer`, and prints nothing.

A group of commands in a file of its own is imported and added at the end.
"""

import click

from dagorama.cli.actions import adopt, cancel, retry
from dagorama.cli.inspect import list_, queues, show, status, unservable, workers
from dagorama.cli.keys import keys
from dagorama.cli.tokens import tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama")
def main() -> None:
    """Look at what a broker holds, and act on it.

    With --json each command prints one JSON document instead of a table; docs/reference/commands.md lists its keys.
    Exit codes: 0 done, 1 refused or no answer, 2 wrong usage.
    """


for command in (list_, show, status, workers, queues, unservable, cancel, retry, adopt, keys, tokens):
    main.add_command(command)
