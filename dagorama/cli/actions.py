"""Commands that act: cancel, retry, adopt. What they say is durable by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import Answer, asking
from dagorama.cli.ids import INSTANCE, NODES, id_digits, whole_ids
from dagorama.cli.tables import counted

if TYPE_CHECKING:
    from dagorama.api.broker_pb2 import Adoption, Unservable
    from dagorama.client.connection import Connection
    from dagorama.models.state import Retried

#: Seconds that a retry waits for workers to say that they have other code.
PATIENCE = 1.0


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
@click.option("--downstream", is_flag=True, help="Also what has used one of the failures, and all that depends on it.")
@click.option("--new-code", is_flag=True, help="Run by the code that is deployed now, not by that which made them.")
@asking
def retry(broker: Connection, instance: str, nodes: Sequence[str], downstream: bool, new_code: bool) -> Answer:
    """Have failed nodes of an instance run again, or all that failed, and what failed because of them wait for them.

    A node that failed because of another stands for that one. Nodes that have used a failure as a value (outcome) are
    counted, and with --downstream run again too.
    """
    from dagorama.api.broker_pb2 import RetryRequest
    from dagorama.client import rebind
    from dagorama.client.control import retried_of

    id, ids = whole_ids(broker, instance, nodes)
    request = RetryRequest(instance=id, node=ids, downstream=downstream, new_code=new_code, patience=PATIENCE)
    retried = retried_of(rebind.retry(broker, request))
    return Answer("\n".join([_retried_text(retried), *retried.warnings]), _retried_data(retried))


def _retried_text(retried: Retried) -> str:
    if not retried:
        nothing = "nothing there has failed"
        return f"{nothing}; {_adopted_text(retried)}" if retried.adopted else nothing
    text = f"{counted(retried.queued, 'node runs', 'nodes run')} again, {counted(retried.waiting, 'waits', 'wait')}"
    if retried.completed:
        text += f"; {retried.completed} of them had completed"
    return f"{text}; {_adopted_text(retried)}" if retried.adopted else text


def _adopted_text(retried: Retried) -> str:
    return f"{counted(retried.adopted, 'node is', 'nodes are')} run by the code that is deployed"


def _retried_data(retried: Retried) -> dict[str, object]:
    return {
        "queued": retried.queued, "waiting": retried.waiting, "completed": retried.completed,
        "used_failures": retried.used_failures, "adopted": retried.adopted,
        "unservable": [
            {"function": each.function, "hash": each.hash, "deployed": list(each.deployed), "reason": each.reason}
            for each in retried.unservable
        ],
    }  # fmt: skip


@click.command()
@click.argument("function")
@click.option("--hash", "hash_", default="", help="Of the code that is to run them [what connected workers have].")
@click.option(
    "--from", "made_with", multiple=True, metavar="HASH",
    help="Only nodes that were made with this code [any that no connected worker has]. May be repeated.",
)  # fmt: skip
@click.option("--instance", type=id_digits, help="Only nodes of this instance [any].")
@asking
def adopt(
    broker: Connection, function: str, hash_: str, made_with: Sequence[str], instance: str | None
) -> Answer:
    """Have unfinished nodes of a function run by the code that is deployed now.

    FUNCTION is its name as `dagorama unservable` shows it, "package.module:Class.method". Nodes that a worker holds
    stay with it. This is signed with the first signing key that is found here, and workers check it; what was signed is
    printed on standard error.
    """
    from dagorama.api.broker_pb2 import AdoptRequest
    from dagorama.client import rebind

    id = whole_ids(broker, instance)[0] if instance is not None else b""
    request = AdoptRequest(function=function, hash=hash_, instance=id)
    getattr(request, "from").extend(made_with)
    reply, signed = rebind.adopt(broker, request)
    text = f"{counted(reply.adopted, 'node goes', 'nodes go')} over to {reply.hash}"
    note = "\n".join([*([_signed_text(signed)] if signed else []), *map(_unservable_text, reply.unservable)])
    return Answer(text, {"adopted": reply.adopted, "hash": reply.hash}, note)


def _signed_text(adoption: Adoption) -> str:
    from dagorama.values.signing import keyring

    codes = sorted({code.partition(" ")[0] for code in adoption.made_with})
    where = f"of instance {UUID(bytes=adoption.instance)}" if adoption.instance else "of all instances"
    return (
        f"signed under the key {keyring().signs_under.hex()}: nodes of {adoption.function} made with "
        f"{', '.join(codes)}, {where}, may be run by {adoption.hash}"
    )


def _unservable_text(found: Unservable) -> str:
    return f"{counted(found.queued, 'node is', 'nodes are')} still not run: {found.reason}"
