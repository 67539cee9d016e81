"""Faults of signals; lives in which somebody sends some have to find them."""

from __future__ import annotations

from typing import Any

from dagorama_broker.engine import retries
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.signals import Mail, SignalRow
from dagorama_broker.scheduler import mail, restore
from dagorama_broker.scheduler.mailboxes import Mailbox, Mailboxes

from .mutants import MUTANTS, mutant

_EARLIER = set(MUTANTS)


@mutant("the key of a signal is forgotten", (mail, "is_known"))
def _(is_known: Any) -> Any:
    return lambda known, signal: False


@mutant("a kept signal is given again", (Mailboxes, "take"))
def _(take: Any) -> Any:
    def taken(self: Mailboxes, box: Mailbox) -> SignalRow:
        row: SignalRow = take(self, box)
        if len(box.kept) % 2:
            box.kept.appendleft(row)
        return row

    return taken


@mutant("a restart forgets signals", (Mailboxes, "load"))
def _(load: Any) -> Any:
    return lambda self, found: load(self, Mail(found.waits, []))


@mutant("a restart forgets that a node waits", (restore, "take_up"))
def _(take_up: Any) -> Any:
    return lambda waits: {}


@mutant("a wait ends before its timeout", (Mailboxes, "set_deadline"))
def _(set_deadline: Any) -> Any:
    return lambda self, key, when: set_deadline(self, key, when - 0.5)


@mutant("a repeated call lets a node wait again that has its signal", (retries, "_waits_again"))
def _(waits_again: Any) -> Any:
    async def again(broker: Broker, asked: retries.Asked) -> set[int]:
        found = await retries.ended_waits(broker, asked.instance, list(asked.waits))
        return {row.key for row in found.values()}

    return again


#: The mutants of this module.
SIGNALS = frozenset(MUTANTS.keys() - _EARLIER)
