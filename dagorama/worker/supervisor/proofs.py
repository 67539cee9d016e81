"""How a worker proves that its ID and its claims are its own: with its secret, and with the proofs of its grants."""

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb

#: The most attempts in all presented grants. The broker accepts twice as many, and a message has room for more.
MAX_PRESENTED_ATTEMPTS = 1 << 16
#: Attempts that are kept in addition to twice the number that was kept after the last cleanup.
CLEANUP_SLACK_ATTEMPTS = 4096


def new_identity() -> tuple[bytes, bytes]:
    """Return the ID and the secret of a new worker. The ID is public; the secret is sent in Hello only."""
    secret = os.urandom(32)
    return sha256(secret).digest()[:16], secret


class _Grant(NamedTuple):
    nodes: list[int]
    attempts: list[int]
    proof: bytes


class Proofs:
    """The proofs of grants of which the worker may still hold nodes."""

    def __init__(self) -> None:
        self._grants: list[_Grant] = []
        self._kept = 0  # attempts in all these grants
        self._bound = CLEANUP_SLACK_ATTEMPTS

    def note(self, grants: Iterable[pb.Grant]) -> None:
        """Remember the proofs of received grants. If a grant comes in pieces, the last piece has the proof."""
        for grant in grants:
            if grant.proof:
                self._grants.append(_Grant(list(grant.node), list(grant.attempt), grant.proof))
                self._kept += len(grant.attempt)

    @property
    def overgrown(self) -> bool:
        """True if `forget_all_but` must be called. This is rare enough to cost little per grant."""
        return self._kept > self._bound

    def forget_all_but(self, held: set[int]) -> None:
        """Forget grants of which no attempt is held."""
        self._grants = [grant for grant in self._grants if not held.isdisjoint(grant.attempts)]
        self._kept = sum(len(grant.attempts) for grant in self._grants)
        self._bound = 2 * self._kept + CLEANUP_SLACK_ATTEMPTS

    def presented(self, held: set[int]) -> list[pb.HeldGrant]:
        """Return the grants of which an attempt is held; if they have too many attempts, only the shortest grants."""
        self.forget_all_but(held)
        found, left = [], MAX_PRESENTED_ATTEMPTS
        for nodes, attempts, proof in sorted(self._grants, key=lambda grant: len(grant.attempts)):
            left -= len(attempts)
            if left < 0:
                break
            found.append(pb.HeldGrant(node=nodes, attempt=attempts, proof=proof))
        return found
