"""`dagorama demand`: how many slots a pool of workers needs now, and what that number follows from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dagorama.api import broker_pb2
from dagorama.cli.base import Answer, broker_command
from dagorama.cli.parameters import Number, names_option
from dagorama.client.display.tables import duration_text, key_values, pluralize

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


def _key_ids(context: click.Context, parameter: click.Parameter, ids: Sequence[str]) -> list[bytes]:
    """Return the IDs of keys as bytes. Raises BadParameter."""
    try:
        return [bytes.fromhex(id) for id in ids]
    except ValueError:
        raise click.BadParameter("the ID of a key is hexadecimal, as `dagorama keys list` prints it") from None


@click.command()
@names_option("--include-queue", "include_queues", "QUEUE", "The workers run only this queue.")
@names_option("--exclude-queue", "exclude_queues", "QUEUE", "The workers do not run this queue.")
@names_option("--toleration", "tolerations", "TAINT", "The workers tolerate this taint.")
@click.option(
    "--key-id", "key_ids", multiple=True, metavar="ID", callback=_key_ids,
    help="The workers hold the signing key with this ID. May be repeated.  [default: the keys that are used here]",
)  # fmt: skip
@click.option(
    "--horizon", type=Number(0.001, 86_400), default=10.0, show_default=True, metavar="SECONDS",
    help="Seconds of work for which one slot is enough.",
)  # fmt: skip
@click.option(
    "--share", type=Number(0, 1, min_open=True), default=1.0, show_default=True,
    help="The part of the ready work that is for these workers, if others run the same queues.",
)  # fmt: skip
@broker_command
def demand(broker: Connection, key_ids: list[bytes], **pool: Any) -> Answer:
    """Show how many slots are needed now of workers that are started with these options.

    A slot is one child process of a worker. The number is the one that a scaler gets: the slots of running nodes, and
    the slots that it takes to run the ready nodes within the horizon. A node is ready if it could be granted to such a
    worker, now or within 30 seconds.
    """
    if not key_ids:
        from dagorama.values.signing import keyring

        key_ids = keyring().ids
    return _answer(broker.get_demand(broker_pb2.DemandRequest(key_ids=key_ids, **pool)))


def _answer(found: broker_pb2.DemandReply) -> Answer:
    unmeasured = f", {found.unmeasured} of functions that have not run yet" if found.unmeasured else ""
    text = key_values([
        ("slots needed", f"{found.slots}"),
        ("running", f"{_nodes(found.running)} in {pluralize(found.running_slots, 'slot', 'slots')}"),
        ("ready", _nodes(found.ready) + unmeasured),
        ("work", duration_text(round(found.seconds * 1_000_000)) or "-"),
        ("oldest ready", duration_text(round(found.oldest_ready * 1_000_000)) or "-"),
        ("workers", f"{found.connected} connected, {found.busy} busy, {found.leaving} leaving"),
    ])  # fmt: skip
    data = {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}
    return Answer(text, data, " ".join(_notes(found)))


def _nodes(count: int) -> str:
    return pluralize(count, "node", "nodes")


def _notes(found: broker_pb2.DemandReply) -> list[str]:
    notes = []
    if found.unservable:
        notes.append(
            f"Workers with these options have returned {_nodes(found.unservable)}: see `dagorama unschedulable`."
        )
    if found.missing_key:
        notes.append(f"Other keys have signed {_nodes(found.missing_key)}: name the keys of the workers with --key-id.")
    return notes
