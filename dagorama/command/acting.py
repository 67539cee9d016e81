"""Commands that act: cancel, retry, adopt. What they say is durable by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.command.asking import Answer, asking
from dagorama.command.tables import counted

if TYPE_CHECKING:
    from dagorama.connection import Connection

_INSTANCE = click.argument("instance", type=click.UUID)
_NODES = click.argument("nodes", type=click.UUID, nargs=-1, metavar="[NODE]...")


@click.command()
@_INSTANCE
@_NODES
@asking
def cancel(broker: Connection, instance: UUID, nodes: Sequence[UUID]) -> Answer:
    """Cancel nodes of an instance, or all of it, with what depends on them; what has ended stays as it is."""
    cancelled = broker.cancel(instance.bytes, [node.bytes for node in nodes])
    return Answer(f"{counted(cancelled, 'node', 'nodes')} cancelled", {"cancelled": cancelled})


@click.command()
@_INSTANCE
@_NODES
@asking
def retry(broker: Connection, instance: UUID, nodes: Sequence[UUID]) -> Answer:
    """Have failed nodes of an instance run again, or all that failed, and what failed because of them wait for them.

    A node that failed because of another stands for that one.
    """
    reply = broker.retry(instance.bytes, [node.bytes for node in nodes])
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
