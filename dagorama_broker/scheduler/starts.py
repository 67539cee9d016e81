"""Counts the starts of nodes with a rate or a limit.

A node that waits behind others in its slot starts when these have ended. Until then its start is held.
"""

from __future__ import annotations

from collections.abc import Iterator

from dagorama_broker.scheduler.effects import TakenBack
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.key_pauses import pausable_key
from dagorama_broker.scheduler.objects import Node, Slot
from dagorama_broker.scheduler.offers import Offers
from dagorama_broker.scheduler.queues import FunctionQueue, QueueGate


class Starts(Offers):
    def __init__(self, graph: Graph, last_attempt: int) -> None:
        super().__init__(graph)
        self.last_attempt = last_attempt
        self.unstarted: dict[int, Node] = {}  #: by attempt: nodes with a limit that wait behind others in their slot
        self.started: dict[int, float] = {}  #: by attempt of a node with a limit: when its start was counted
        self.moved_up: dict[Slot, None] = {}  #: slots that a node has left, and whose first one may start now

    def count_start(self, slot: Slot, node: Node, attempt: int) -> None:
        """Count a claim against the limits of a function, and a start, unless it is an earlier attempt that has begun.

        A node that waits behind others starts when these have ended. Until then its start is held.
        """
        queue = node.queue
        gates = queue.base.gates
        for gate in gates:
            gate.claimed += 1
        waits = bool(slot.sync_us) and not queue.is_async
        if waits:
            self.unstarted[attempt or self.last_attempt + 1] = node
        elif attempt:
            return
        else:
            self.started[self.last_attempt + 1] = self.graph.now
        for gate in gates if queue.gate is None else (*gates, queue.gate):
            if gate.hold() if waits else gate.start(self.graph.now):
                self.graph.rates.watch(gate)
            if gate.key is not None and len(gate.queues) > 1:
                self.graph.rates.opened(gate)  # other code of the function has a queue of this key, too

    def begin_first(self) -> None:
        """Count the starts of sync nodes that are first in their slots by now."""
        slots, self.moved_up = self.moved_up, {}
        for slot in slots:
            for attempt, (node, _) in slot.held.items():
                if not node.queue.is_async:
                    if self.unstarted.pop(attempt, None) is not None:
                        self._begin(node)
                    break

    def _begin(self, node: Node) -> None:
        queue, now = node.queue, self.graph.now
        self.started[node.attempt] = now
        for gate in queue.base.gates if queue.gate is None else (*queue.base.gates, queue.gate):
            if gate.held:
                gate.held -= 1
                if gate.start(now):
                    self.graph.rates.watch(gate)

    def uncount_start(self, attempt: int, has_run: bool = False) -> None:
        """Give back the start of a claimed node whose function has not run, or if it `has_run`, only one that is held.

        Otherwise nodes that workers return, and nodes that get a cached value, would use up the rate.
        """
        is_held, when = self.unstarted.pop(attempt, None) is not None, self.started.pop(attempt, None)
        for gate in gates_of(self.claimed[attempt].queue) if is_held or (when is not None and not has_run) else ():
            if is_held:
                gate.release()
            else:
                gate.give_back(when or 0.0)
            self.graph.rates.opened(gate)

    def pause_key(self, node: Node, seconds: float) -> bool:
        """Grant no nodes with the key or the shared limit of this one for some seconds; return False if it has none.

        Nodes that wait behind others in their processes are taken back, unless they have started by then.
        """
        graph, what = self.graph, pausable_key(node.queue)
        if what is None:
            return False
        if graph.key_pauses.pause(what, seconds, node.key, graph.now, graph.wall, graph.changes):
            graph.key_pauses.apply_to_all(what, graph.stir)
            held = [slot for slot, other in self._behind() if what in graph.key_pauses.held(other.queue)]
            for slot in dict.fromkeys(held):
                self.ask_back(slot)
        return True

    def ask_back(self, slot: Slot) -> None:
        """Ask the process of a slot for the nodes that have not started: all but the first."""
        slot.asked = True
        self.graph.effects.take_back.append(TakenBack(slot, list(slot.held)[1:]))

    def _behind(self) -> Iterator[tuple[Slot, Node]]:
        """Yield the nodes that wait behind others in their slots, unless these were asked back before."""
        for attempt, node in self.claimed.items():
            slot = node.slot
            if slot is not None and len(slot.held) > 1 and not slot.asked and next(iter(slot.held)) != attempt:
                yield slot, node


def gates_of(queue: FunctionQueue) -> list[QueueGate]:
    """Return all that limits the nodes of a queue."""
    return [*queue.base.gates, queue.gate] if queue.gate is not None else [*queue.base.gates]
