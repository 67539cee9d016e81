"""Commands that act: cancel, retry, adopt. What they say is durable by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dagorama.command.asking import Answer, asking
from dagorama.command.ids import INSTANCE, NODES, whole_ids
from dagorama.command.tables import counted

if TYPE_CHECKING:
    from dagorama.connection import Connection


@click.command()
@INSTANCE
@NODES
@asking
def cancel(broker: Connection, instance: str, nodes: Sequence[str]) -> Answer:
    """Cancel nodes of an instance, or all of it, with what depends on them; what has ended stays as it is."""
    cancelled = broker.cancel(*whole_ids(broker, instance, nodes))
    return Answer(f"{counted(cancelled, 'node', 'nodes')} cancelled", {"cancelled": cancelled})


@click.command()
@INSTANCE
@NODES
@asking
def retry(broker: Connection, instance: str, nodes: Sequence[str]) -> Answer:
    """Have failed nodes of an instance run again, or all that failed, and what failed because of them wait for them.

    A node that failed because of another stands for that one.
    """
    reply = broker.retry(*whole_ids(broker, instance, nodes))
    if not reply.queued and not reply.waiting:
        text = "nothing there has failed"
    else:
        text = f"{counted(reply.queued, 'node runs', 'nodes run')} again, {counted(reply.waiting, 'waits', 'wait')}"
    return Answer(text, {"queued": reply.queued, "waiting": reply.waiting})


@click.command()
@click.argument("function")
@click.option("--hash", "hash_", default="", help="Of the code that is to run them [what connected workers have].")
@click.option(
    "--from", "made_with", multiple=True, metavar="HASH",
    help="Only nodes that were made with this code [any that no connected worker has]. May be repeated.",
)  # fmt: skip
@asking
def adopt(broker: Connection, function: str, hash_: str, made_with: Sequence[str]) -> Answer:
    """Have unfinished nodes of a function run by the code that is deployed now.

    FUNCTION is its name as `dagorama unservable` shows it, "package.module:Class.method". Nodes that a worker holds
    stay with it.
    """
    reply = broker.adopt(function, hash_, made_with)
    text = f"{counted(reply.adopted, 'node goes', 'nodes go')} over to {reply.hash}"
    return Answer(text, {"adopted": reply.adopted, "hash": reply.hash})
