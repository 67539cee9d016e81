"""Commands about workers: list them, let one leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dagorama.api import broker_pb2
from dagorama.cli.base import MIN_ID_DIGITS, Answer, broker_command, broker_options, named_command, print_answer
from dagorama.cli.output import NAMED, Output
from dagorama.client.display.tables import pluralize, table, uuid_text
from dagorama.errors import NotFound, RequestRejected

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.group(invoke_without_command=True)
@click.pass_context
@broker_options(NAMED)
def workers(context: click.Context, host: str | None, port: int | None, output: Output) -> None:
    """List connected workers, their queues and tolerations, and the number of nodes that they hold."""
    if context.invoked_subcommand is None:
        print_answer(lambda broker: workers_answer(broker.get_status()), host, port, output)


@workers.command("list")
@named_command
def list_(broker: Connection) -> Answer:
    """List connected workers, as `dagorama workers` does."""
    return workers_answer(broker.get_status())


def workers_answer(status: broker_pb2.Status) -> Answer:
    """Return the table of connected workers."""
    found = status.workers
    rows = [
        (
            worker.name,
            worker.worker.hex()[:8],
            "leaving" if worker.leaving else "",
            f"{worker.slots}",
            f"{worker.held}",
            _taken(worker),
            ",".join(worker.tolerations),
        )
        for worker in found
    ]
    data = [
        {
            "worker": uuid_text(worker.worker), "name": worker.name, "leaving": worker.leaving, "slots": worker.slots,
            "held": worker.held, "include_queues": list(worker.include_queues),
            "exclude_queues": list(worker.exclude_queues), "tolerations": list(worker.tolerations),
        }
        for worker in found
    ]  # fmt: skip
    text = table(("worker", "id", "state", "slots", "held", "queues", "tolerations"), rows)
    return Answer(text, data, names=[f"{uuid_text(worker.worker)}" for worker in found])


def _taken(worker: broker_pb2.WorkerInfo) -> str:
    taken = ",".join(worker.include_queues) or "all"
    return f"{taken} except {','.join(worker.exclude_queues)}" if worker.exclude_queues else taken


@workers.command()
@click.argument("worker")
@broker_command
def drain(broker: Connection, worker: str) -> Answer:
    """Let WORKER finish the nodes that it runs, and leave; it gets no new nodes.

    WORKER is a name as `dagorama workers` shows it, or the first 4 or more digits of an ID. The process exits with 0
    when its last node has ended. A worker of an older version stays connected without nodes.
    """
    found = _worker(broker, worker)
    reply = broker.drain_worker(found.worker)
    held = pluralize(reply.held, "node", "nodes")
    text = f"worker {reply.name} {'leaves already' if reply.was_draining else 'leaves'}; it holds {held}"
    data = {
        "worker": uuid_text(found.worker), "name": reply.name, "held": reply.held, "was_leaving": reply.was_draining,
    }  # fmt: skip
    return Answer(text, data)


def _worker(broker: Connection, text: str) -> broker_pb2.WorkerInfo:
    """Return the only worker with this name, or with an ID that begins so. Raises NotFound or RequestRejected."""
    connected = broker.get_status().workers
    digits = text.lower().replace("-", "")
    found = [worker for worker in connected if worker.name == text]
    if not found and len(digits) >= MIN_ID_DIGITS:
        found = [worker for worker in connected if worker.worker.hex().startswith(digits)]
    if not found:
        names = ", ".join(worker.name for worker in connected[:10])
        raise NotFound(f"no worker {text!r} is connected; connected are: {names or 'none'}")
    if len(found) > 1:
        ids = ", ".join(worker.worker.hex() for worker in found)
        raise RequestRejected(f"several workers are called {text!r}; name one by its ID: {ids}")
    return found[0]
