"""Send a signal to an instance, for `dagorama send`. The broker has stored it before the answer is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import INSTANCE, Answer, NumbersCommand, broker_command, node_names, whole_ids
from dagorama.client.display.tables import pluralize, uuid_text

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command(cls=NumbersCommand)
@INSTANCE
@click.argument("name")
@click.argument("value", metavar="JSON")
@click.option(
    "--key", default="", help="Send the signal once: repeating it with the same key and value changes nothing."
)
@broker_command
def send(broker: Connection, instance: str, name: str, value: str, key: str) -> Answer:
    """Send the signal NAME to a node that waits for it (wait_for).

    If no node waits yet, the broker keeps the signal. The value is JSON: true, 3, '"text"' or '{"yes": true}'; with -
    it is read from standard input.
    """
    from dagorama.api.broker_pb2 import SendSignalRequest
    from dagorama.client.signals import checked_json

    text = sys.stdin.read() if value == "-" else value
    id, _ = whole_ids(broker, instance)
    reply = broker.send_signal(SendSignalRequest(instance=id, name=name, value=checked_json(name, text), key=key))
    data = {"known": reply.known, "node": uuid_text(reply.node), "kept": reply.kept}
    if reply.known:
        return Answer("a signal with this key was sent before; nothing has changed", data)
    if reply.node:
        name_of = node_names(broker, [reply.node])
        return Answer(f"given to node {name_of[reply.node]}", data, names=[f"{UUID(bytes=reply.node)}"])
    kept = pluralize(reply.kept, "signal", "signals")
    return Answer(f"kept until a node waits for it: {kept} {name!r}", data)
