"""Show where a running node stands now, for `dagorama stack`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import INSTANCE, Answer, broker_command, id_digits, whole_ids
from dagorama.cli.tables import uuid_text

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command()
@INSTANCE
@click.argument("node", type=id_digits)
@broker_command
def stack(broker: Connection, instance: str, node: str) -> Answer:
    """Show the stacks of all threads of the process that runs NODE, without interrupting it.

    It works while the node is busy in C code. Values of variables are not shown.
    """
    whole, (found,) = whole_ids(broker, instance, [node])
    shown = broker.get_stack(whole, found)
    of = f"{shown.function}, node {UUID(bytes=found)}, attempt {shown.attempt}, on {shown.worker}"
    return Answer(f"{of}\n\n{shown.stack.rstrip()}", {
        "instance": uuid_text(whole), "node": uuid_text(found), "function": shown.function, "attempt": shown.attempt,
        "worker": shown.worker, "stack": shown.stack, "note": shown.note or None,
    }, f"Note: {shown.note}." if shown.note else "")  # fmt: skip
