"""Keeps the envelopes that will be read soon: adds the ones of a commit, drops the ones that no node will be given."""

from __future__ import annotations

from collections.abc import Callable, Container

from dagorama_broker.engine.argument_cache import ArgumentCache
from dagorama_broker.engine.payload_cache import PayloadCache, Read
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import Effects


class Payloads:
    """Caches arguments of unfinished nodes, and values that unfinished nodes or waiting clients will be given."""

    def __init__(self, most: int, arguments: Read, values: Read) -> None:
        self.arguments = ArgumentCache(most, arguments)
        self.values = PayloadCache(most, values)

    def take_in(self, changes: Changes, nodes: Container[int], is_wanted: Callable[[int], bool]) -> None:
        """Add the envelopes of a commit that will be read soon."""
        for revived in changes.retried:
            if revived.state != State.RESOLVING:
                self.values.drop(revived.key)
        self.arguments.keep_rows(changes.nodes, nodes)
        for given_up in changes.given_up:
            for key in range(given_up.first_key, given_up.last_key + 1):
                self.arguments.drop(key)
        for outcome in changes.outcomes:
            if outcome.value is not None and (outcome.state == State.RESOLVING or is_wanted(outcome.key)):
                self.values.keep(outcome.key, outcome.value)

    def let_go(self, effects: Effects, is_wanted: Callable[[int], bool]) -> None:
        """Drop the envelopes that no unfinished node will be given."""
        self.arguments.drop_all([node.key for node in effects.ended])
        kept = self.values.kept
        for node in effects.ended:
            if not node.consumers and node.key in kept and not is_wanted(node.key):
                self.values.drop(node.key)
        for key in effects.unread:
            if key in kept and not is_wanted(key):
                self.values.drop(key)
