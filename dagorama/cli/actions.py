"""Commands that change nodes: cancel, retry, rebind. The broker has stored the change before they print it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import NODES, TARGET, Answer, broker_command, id_digits, whole_ids
from dagorama.cli.parameters import filled
from dagorama.client.display.tables import pluralize

if TYPE_CHECKING:
    from dagorama.api.broker_pb2 import Rebinding, Unschedulable
    from dagorama.client.connection import Connection
    from dagorama.models.state import Retried

#: Time that the broker waits for workers to report that they have other code than the retried nodes.
CODE_REPORT_TIMEOUT_S = 1.0


@click.command()
@TARGET
@NODES
@broker_command
def cancel(broker: Connection, instance: str, nodes: Sequence[str]) -> Answer:
    """Cancel nodes of an instance (all of them by default) and the nodes that depend on them.

    Nodes that have already ended do not change.
    """
    cancelled = broker.cancel(*whole_ids(broker, instance, nodes))
    return Answer(f"{pluralize(cancelled, 'node', 'nodes')} cancelled", {"cancelled": cancelled})


@click.command()
@TARGET
@NODES
@click.option(
    "--downstream", is_flag=True, help="Also retry nodes that used a failure as a value, and their dependents."
)
@click.option("--new-code", is_flag=True, help="Rerun with the currently deployed code instead of the original code.")
@broker_command
def retry(broker: Connection, instance: str, nodes: Sequence[str], downstream: bool, new_code: bool) -> Answer:
    """Retry failed nodes of an instance (all of them by default) together with the nodes downstream.

    If a given node failed because of another node, the other node is retried. Nodes that used a failure as a value
    (outcome) are counted, and rerun only with --downstream. With it, a given node that has received a signal
    waits for another one.
    """
    from dagorama.api.broker_pb2 import RetryRequest
    from dagorama.client import rebind
    from dagorama.client.control import retried_of

    id, ids = whole_ids(broker, instance, nodes)
    request = RetryRequest(
        instance=id, node=ids, downstream=downstream, new_code=new_code, patience=CODE_REPORT_TIMEOUT_S
    )
    retried = retried_of(rebind.retry(broker, request))
    return Answer("\n".join([_retried_text(retried), *retried.warnings]), _retried_data(retried))


def _retried_text(retried: Retried) -> str:
    if not retried:
        nothing = "nothing to retry"
        return f"{nothing}; {_rebound_text(retried)}" if retried.rebound else nothing
    text = f"{pluralize(retried.queued, 'node runs', 'nodes run')} again, {pluralize(retried.waiting, 'waits', 'wait')}"
    if retried.completed:
        text += f"; {retried.completed} of them had completed"
    return f"{text}; {_rebound_text(retried)}" if retried.rebound else text


def _rebound_text(retried: Retried) -> str:
    return f"{pluralize(retried.rebound, 'node uses', 'nodes use')} the deployed code"


def _retried_data(retried: Retried) -> dict[str, object]:
    return {
        "queued": retried.queued, "waiting": retried.waiting, "completed": retried.completed,
        "used_failures": retried.used_failures, "rebound": retried.rebound,
        "unschedulable": [
            {"function": each.function, "hash": each.hash, "deployed": list(each.deployed), "reason": each.reason}
            for each in retried.unschedulable
        ],
    }  # fmt: skip


@click.command("rebind")
@click.argument("function")
@click.option(
    "--hash", "hash_", type=filled, metavar="HASH",
    help="Hash of the code to run them with  [default: the code of connected workers].",
)  # fmt: skip
@click.option(
    "--from-hash", "made_with", type=filled, multiple=True, metavar="HASH",
    help="Only nodes created with this code  [default: any code that no connected worker has]. May be repeated.",
)  # fmt: skip
@click.option("--instance", type=id_digits, metavar="INSTANCE", help="Only nodes of this instance.")
@broker_command
def rebind(
    broker: Connection, function: str, hash_: str | None, made_with: Sequence[str], instance: str | None
) -> Answer:
    """Run unfinished nodes of a function with the currently deployed code.

    FUNCTION is "package.module:Class.method", as `dagorama unschedulable` shows it. Nodes that a worker holds are not
    affected. The request is signed with the first local signing key, and workers verify the signature; the signed
    statement is printed on standard error.
    """
    from dagorama.api.broker_pb2 import RebindRequest
    from dagorama.client.rebind import rebind

    id = whole_ids(broker, instance)[0] if instance is not None else b""
    request = RebindRequest(function=function, hash=hash_ or "", instance=id)
    request.from_hash.extend(made_with)
    reply, signed = rebind(broker, request)
    text = f"{pluralize(reply.rebound, 'node', 'nodes')} rebound to {reply.hash}"
    note = "\n".join([*([_signed_text(signed)] if signed else []), *map(_unservable_text, reply.unschedulable)])
    return Answer(text, {"rebound": reply.rebound, "hash": reply.hash}, note)


def _signed_text(rebinding: Rebinding) -> str:
    from dagorama.values.signing import keyring

    codes = sorted({code.partition(" ")[0] for code in rebinding.made_with})
    where = f"of instance {UUID(bytes=rebinding.instance)}" if rebinding.instance else "of all instances"
    return (
        f"signed with the key {keyring().signs_under.hex()}: nodes of {rebinding.function} created with "
        f"{', '.join(codes)}, {where}, may run with {rebinding.hash}"
    )


def _unservable_text(found: Unschedulable) -> str:
    return f"{pluralize(found.queued, 'node still cannot', 'nodes still cannot')} run: {found.reason}"
