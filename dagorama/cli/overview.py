"""Commands about the state of the broker: its health, workers, queues, and functions that no worker may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dagorama.api import broker_pb2
from dagorama.cli.activity import queue_data
from dagorama.cli.base import (
    Answer,
    address_options,
    broker_command,
    broker_options,
    fail,
    fail_with,
    named_command,
    print_answer,
)
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.inspect import function_data
from dagorama.cli.output import NAMED, Output
from dagorama.cli.parameters import Number
from dagorama.cli.workers import workers_answer
from dagorama.client.display.tables import key_values, pluralize, table, time_text
from dagorama.errors import BrokerError
from dagorama.models.state import State
from dagorama.settings import Settings

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command()
@broker_command
def status(broker: Connection) -> Answer:
    """Show live instances, connected workers, queues, and unschedulable functions."""
    found = broker.get_status()
    nodes = [(name, f"{count}") for name, count in _counts(found).items()]
    blocks = [
        f"dagorama {found.version}, epoch {found.epoch}, "
        f"{pluralize(found.instances, 'live instance', 'live instances')}\n"
        f"since startup: {found.commits} commits, {found.messages_in} messages in, {found.messages_out} out",
        table(("node", "count"), nodes),
        workers_answer(found).text,
        _queues(found).text,
        _limits(found).text if found.limits else "",
        _unservable(found).text if found.unschedulable else "",
    ]
    data = {
        "version": found.version, "epoch": found.epoch, "instances": found.instances, "commits": found.commits,
        "messages_in": found.messages_in, "messages_out": found.messages_out, "nodes": _counts(found),
        "workers": workers_answer(found).data, "queues": _queues(found).data, "limits": limits_data(found),
        "unschedulable": _unservable(found).data,
    }  # fmt: skip
    return Answer("\n\n".join(filter(None, blocks)), data)


def _counts(status: broker_pb2.Status) -> dict[str, int]:
    return {state.name: count for state, count in zip(State, status.nodes, strict=True)}


@click.group(invoke_without_command=True)
@click.pass_context
@broker_options(NAMED)
def queues(context: click.Context, host: str | None, port: int | None, output: Output) -> None:
    """List paused queues, and queues with nodes that are queued, claimed by a worker, or delayed."""
    if context.invoked_subcommand is None:
        print_answer(lambda broker: _queues(broker.get_status()), host, port, output)


@queues.command("list")
@named_command
def list_(broker: Connection) -> Answer:
    """List queues, as `dagorama queues` does."""
    return _queues(broker.get_status())


@queues.command()
@click.argument("queue")
@broker_command
def pause(broker: Connection, queue: str) -> Answer:
    """Stop granting the nodes of QUEUE; nodes that workers hold continue.

    The queue stays paused when the broker is restarted, until `dagorama queues resume`.
    """
    return _paused(broker, queue, False)


@queues.command()
@click.argument("queue")
@click.option("--keys", is_flag=True, help="Also end the pauses that nodes have requested (RetryLater with pause_key).")
@broker_command
def resume(broker: Connection, queue: str, keys: bool) -> Answer:
    """Grant the nodes of QUEUE again."""
    return _paused(broker, queue, True, keys)


@queues.command()
@broker_command
def limits(broker: Connection) -> Answer:
    """List shared limits, rates of functions, and rates of keys that hold nodes, and how much of each is used."""
    return _limits(broker.get_status())


def _limits(status: broker_pb2.Status) -> Answer:
    rows = [
        (
            each.name if each.shared else each.name.rpartition(":")[2],
            each.key,
            f"{each.starts} of {each.rate.starts} per {each.rate.seconds:g} s" if each.HasField("rate") else "",
            f"{each.claimed} of {each.max_concurrency}" if each.max_concurrency else "",
            f"{each.queued}",
            time_text(each.next_start),
            each.declared_by.rpartition(":")[2] if each.shared else "",
        )
        for each in status.limits
    ]
    text = table(("limit", "key", "starts", "at once", "queued", "next start", "declared by"), rows)
    return Answer(text if rows else "no function that the broker knows has a rate or a limit", limits_data(status))


def limits_data(status: broker_pb2.Status) -> list[dict[str, object]]:
    """Return the limits of a status as JSON data."""
    return [
        {
            "name": each.name, "shared": each.shared, "key": each.key or None,
            "rate": {"starts": each.rate.starts, "seconds": each.rate.seconds} if each.HasField("rate") else None,
            "max_concurrency": each.max_concurrency or None, "starts": each.starts, "claimed": each.claimed,
            "queued": each.queued, "next_start": each.next_start or None, "declared_by": each.declared_by or None,
        }
        for each in status.limits
    ]  # fmt: skip


def _paused(broker: Connection, queue: str, resume: bool, keys: bool = False) -> Answer:
    reply = broker.pause_queue(queue, resume, keys)
    text = f"queue {queue} {'is' if reply.changed else 'was'} {'resumed' if resume else 'paused'}"
    if not reply.changed:
        text = f"queue {queue} was {'not paused' if resume else 'paused already'}"
    if keys:
        text += f"; {pluralize(reply.ended, 'pause', 'pauses')} of its keys and limits ended"
    held = f"{pluralize(reply.queued, 'node is', 'nodes are')} queued, workers hold {reply.claimed}"
    data = {
        "queue": queue,
        "paused": not resume,
        "changed": reply.changed,
        "queued": reply.queued,
        "claimed": reply.claimed,
        "keys_resumed": reply.ended,
    }
    return Answer(f"{text}; {held}", data)


def _queues(status: broker_pb2.Status) -> Answer:
    rows = [
        (
            queue.queue,
            f"{queue.queued}",
            f"{queue.claimed}",
            f"{queue.delayed}",
            ",".join(queue.taints),
            " ".join(filter(None, [time_text(queue.paused_since), queue.paused_by])),
        )
        for queue in status.queues
    ]
    data = [queue_data(queue) for queue in status.queues]
    text = table(("queue", "queued", "claimed", "delayed", "taints", "paused"), rows)
    return Answer(text, data, names=[queue.queue for queue in status.queues])


@click.command()
@named_command
def unschedulable(broker: Connection) -> Answer:
    """List queued functions that no connected worker can run, with the reason.

    If the reason is other code, `dagorama rebind` runs their nodes with the deployed code.
    """
    return _unservable(broker.get_status())


def _unservable(status: broker_pb2.Status) -> Answer:
    blocks = [
        key_values([
            ("function", each.function.name), ("hash", each.function.hash), ("queued", f"{each.queued}"),
            ("reason", each.reason), ("deployed", ", ".join(each.deployed) or "-"),
        ])
        for each in status.unschedulable
    ]  # fmt: skip
    data = [
        {
            **function_data(each.function), "queued": each.queued, "reason": each.reason,
            "deployed": list(each.deployed),
        }
        for each in status.unschedulable
    ]  # fmt: skip
    names = [each.function.name for each in status.unschedulable]
    return Answer("\n\n".join(blocks) or "nothing is unschedulable", data, names=names)


@click.command()
@address_options
@click.option(
    "--timeout", type=Number(0, min_open=True, max=3600), default=3.0, show_default=True, metavar="SECONDS",
    help="Time that the broker has to answer.",
)  # fmt: skip
def healthcheck(host: str | None, port: int | None, timeout: float) -> None:
    """Exit with 0 if the broker is serving, and with 69 if it is not, or does not answer. Needs no token."""
    from dagorama.client.addresses import address
    from dagorama.client.health import is_serving

    settings = Settings.from_env(host, port)
    try:
        serving = is_serving(settings, timeout)
    except BrokerError as error:
        fail_with(error, ExitCode.UNAVAILABLE)
    if not serving:
        text = f"the broker at {address(settings)} is not serving: it is starting or shutting down"
        fail(text, ExitCode.UNAVAILABLE)
    click.echo("serving")
