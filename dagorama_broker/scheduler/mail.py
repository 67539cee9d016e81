"""Gives signals to nodes that wait for them, or keeps them; ends waits.

The rule: nodes take signals of a name in the order in which both came. A signal is given to one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from dagorama_broker.errors import Conflict, FailedPrecondition, ResourceExhausted, utc_text
from dagorama_broker.model.rows import Changes
from dagorama_broker.model.signals import MOST_KEPT, SIGNAL_HEAD, Mail, NewSignal, SignalRow, WaitEnd, WaitRow
from dagorama_broker.scheduler.mailboxes import Mailbox, Mailboxes, ended_wait_text, size_of_wait
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.transitions import CANCELLED, COMPLETED


class WaitingNodes(Protocol):
    """The graph, as far as signals are concerned."""

    mail: Mailboxes
    changes: Changes
    now: float
    wall: float


class CompletedNodes(WaitingNodes, Protocol):
    """A graph that completes nodes."""

    def complete(
        self, node: Node, value: bytes, refs: tuple[Node, ...], large: Sequence[bytes], microseconds: int, worker: int
    ) -> None: ...


class Sent(NamedTuple):
    """The reply to a signal."""

    is_known: bool = False  #: a signal with its key was accepted before, and nothing has changed
    node: Node | None = None  #: that it was given to; None: it is kept until a node waits for it
    kept: int = 0  #: signals of this name that are kept


def signal_value(wait: WaitRow, value: bytes) -> bytes:
    """Return the value of a node that has waited: its own signed arguments, and the JSON; empty JSON: its default."""
    return b"".join((SIGNAL_HEAD, len(wait.arguments).to_bytes(4, "little"), wait.arguments, value))


# --- what happens to nodes and signals --------------------------------------------------------------------


def begin_wait(graph: CompletedNodes, node: Node) -> None:
    """Let a node wait for its signal; if one is kept that may fit its type, it is given to the node at once."""
    wait, mail = node.wait, graph.mail
    assert wait is not None
    box = mail.box(node.instance.key, wait.name)
    box.over = ""
    if (row := mail.take(box, wait.schema)) is not None:
        if row.key:
            graph.changes.signals.append(row._replace(value=None))
        else:
            graph.changes.signals_gone.append(row.number)
        _give(graph, node, row.value or b"", row.by)
        return
    node.pending = 1
    box.waiting[node.key] = node
    mail.waits += 1
    mail.size += size_of_wait(wait)
    if wait.until:
        left = min(wait.timeout, max(0.0, wait.until - graph.wall - graph.now))
        mail.set_deadline(node.key, graph.now + left)


def send(graph: CompletedNodes, instance: int, signal: NewSignal) -> Sent:
    """Give a signal to the node that has waited longest for it, or keep it.

    Raises Conflict if another one with its key was sent, FailedPrecondition if no node waits for it any longer, and
    ResourceExhausted if too many are kept.
    """
    mail = graph.mail
    box = mail.find(instance, signal.name) or Mailbox()
    if is_known(box.keys.get(signal.key), signal):
        return Sent(is_known=True, kept=len(box.kept))
    if not box.waiting and box.over:
        raise FailedPrecondition(f"no node waits for the signal {signal.name!r} any longer: {box.over}")
    if not box.waiting and len(box.kept) >= MOST_KEPT:
        raise ResourceExhausted(
            f"{MOST_KEPT:,} signals {signal.name!r} are kept already, because no node of the instance waits for them"
        )
    if mail.enough(len(signal.value)):
        raise ResourceExhausted("the broker keeps too many signals that no node waits for")
    box = mail.box(instance, signal.name)
    row = SignalRow(
        mail.next_number, instance, signal.name, signal.key, signal.digest, signal.by, graph.now + graph.wall, None
    )
    node = next(iter(box.waiting.values()), None)
    if node is None:
        row = row._replace(value=signal.value)
        mail.keep(box, row)
    if node is None or signal.key:
        mail.next_number += 1
        graph.changes.signals.append(row)
    if signal.key:
        mail.remember(box, row, graph.changes)
    if node is not None:
        _give(graph, node, signal.value, signal.by)
    return Sent(node=node, kept=len(box.kept))


def is_known(known: tuple[bytes, int] | None, signal: NewSignal) -> bool:
    """Return whether this signal was sent before. Raises Conflict if another one was, with its key."""
    if known is None or not signal.key:
        return False
    if known[0] != signal.digest:
        raise Conflict(
            f"a signal {signal.name!r} with the key {signal.key!r} was sent to this instance before, with another value"
        )
    return True


def refuse_ended(mail: Mail, signal: NewSignal, ended: float) -> Sent:
    """Return that a signal to an ended instance was sent before; else raise FailedPrecondition, or Conflict."""
    for row in mail.signals:
        if row.name == signal.name and row.key == signal.key and is_known((row.digest, row.number), signal):
            return Sent(is_known=True)
    raise FailedPrecondition(
        f"the instance has ended at {utc_text(ended)}, so that no node of it waits for {signal.name!r}"
    )


def take_default(graph: CompletedNodes, node: Node) -> None:
    """Complete a node whose timeout is over with its default."""
    assert node.wait is not None
    _complete(graph, node, b"", node.wait._replace(end=WaitEnd.DEFAULT))


def _give(graph: CompletedNodes, node: Node, value: bytes, by: str) -> None:
    assert node.wait is not None
    graph.mail.taken += 1
    _complete(graph, node, value, node.wait._replace(end=WaitEnd.SENT, by=by))


def _complete(graph: CompletedNodes, node: Node, value: bytes, row: WaitRow) -> None:
    node.wait = row._replace(ended=graph.now + graph.wall)
    graph.changes.waits.append(node.wait)
    node.pending = 0
    graph.complete(node, signal_value(row, value), (), (), 0, 0)


def leave(graph: WaitingNodes, node: Node) -> None:
    """Note that a node has ended, however it did: it no longer waits."""
    wait = node.wait
    assert wait is not None
    box = graph.mail.box(node.instance.key, wait.name)
    if box.waiting.pop(node.key, None) is not None:
        graph.mail.waits -= 1
        graph.mail.size -= size_of_wait(wait)
        graph.mail.clear_deadline(node.key)
    if node.state is not COMPLETED:
        end = WaitEnd.CANCELLED if node.state is CANCELLED else WaitEnd.TIMED_OUT
        wait = node.wait = wait._replace(end=end, ended=graph.now + graph.wall)
        graph.changes.waits.append(wait)
    if not box.waiting:
        box.over = ended_wait_text(wait)


def enter(graph: WaitingNodes, node: Node, row: WaitRow) -> None:
    """Record that a node, which is new or retried, will wait for a signal; its timeout begins now."""
    until = graph.now + graph.wall + row.timeout if row.timeout else 0.0
    row = row._replace(key=node.key, instance=node.instance.key, until=until)
    node.wait = row._replace(end=WaitEnd.NONE, by="", ended=0.0)
    graph.changes.waits.append(node.wait)


def take_up(waits: Iterable[WaitRow]) -> dict[int, WaitRow]:
    """Return the rows of nodes that have not ended, by key."""
    return {row.key: row for row in waits if not row.end}
