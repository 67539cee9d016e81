"""Signals: given to nodes that wait for them, or kept; and the ends of waits whose timeout is over.

The seventh layer of `Scheduler`. Each verb changes everything it must, or refuses and changes nothing.
"""

from __future__ import annotations

from itertools import islice

from dagorama_broker.model.signals import NewSignal, WaitRow
from dagorama_broker.scheduler.administration import Administration
from dagorama_broker.scheduler.instances import Instance
from dagorama_broker.scheduler.mail import Sent, send, take_default
from dagorama_broker.scheduler.mailboxes import SignalCounts

#: Type of the failure of a node whose signal has not come in time.
SIGNAL_TIMEOUT = "dagorama.errors.SignalTimeout"


class Signals(Administration):
    @property
    def signal_counts(self) -> SignalCounts:
        """The counts of kept signals, waits and taken signals."""
        return self.graph.mail.counts()

    def next_wait(self, instance: Instance, name: str) -> WaitRow | None:
        """Return the wait that would get the next signal of this name; None: no node waits for it."""
        box = self.graph.mail.find(instance.key, name)
        return None if box is None else next((node.wait for node in box.waiting.values()), None)

    def send_signal(self, instance: Instance, signal: NewSignal) -> Sent:
        """Give a signal to a node of an unfinished instance, or keep it; see `mail.send`.

        Raises Conflict, FailedPrecondition or ResourceExhausted, and then nothing has changed.
        """
        return send(self.graph, instance.key, signal)

    def _end_waits(self) -> None:
        """Fail nodes whose timeout is over, or complete them with their default."""
        for key in islice(self.graph.mail.overdue(self.graph.now), self.limits.step):
            node = self.graph.nodes[key]
            wait = node.wait
            assert wait is not None
            if wait.has_default:
                take_default(self.graph, node)
            else:
                text = f"the signal {wait.name!r} did not come within {wait.timeout:g} s (timeout)"
                self._again_or_fail(node, False, SIGNAL_TIMEOUT, text)
