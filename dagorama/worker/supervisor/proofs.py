"""How a worker proves that its id and its claims are its own: its secret, and the proofs of its grants."""

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb

#: Attempts that presented grants name in all: the broker takes twice as many, and a message has room for more.
MOST_PRESENTED = 1 << 16
#: Attempts that are kept beyond twice those that were held at the last look.
SLACK = 4096


def new_identity() -> tuple[bytes, bytes]:
    """Return a worker's id and its secret. The id may be shown; the secret goes into Hello and nowhere else."""
    secret = os.urandom(32)
    return sha256(secret).digest()[:16], secret


class _Grant(NamedTuple):
    nodes: list[int]
    attempts: list[int]
    proof: bytes


class Proofs:
    """The proofs of grants that the worker may still hold nodes of."""

    def __init__(self) -> None:
        self._grants: list[_Grant] = []
        self._kept = 0  # attempts that they name
        self._bound = SLACK

    def note(self, grants: Iterable[pb.Grant]) -> None:
        """Grants as they come; what comes in pieces has its proof in the last."""
        for grant in grants:
            if grant.proof:
                self._grants.append(_Grant(list(grant.node), list(grant.attempt), grant.proof))
                self._kept += len(grant.attempt)

    @property
    def overgrown(self) -> bool:
        """Whether it is time to call `forget_all_but`: the cost of that is a small part of what came since."""
        return self._kept > self._bound

    def forget_all_but(self, held: set[int]) -> None:
        """Forget grants of which no attempt is held any more."""
        self._grants = [grant for grant in self._grants if not held.isdisjoint(grant.attempts)]
        self._kept = sum(len(grant.attempts) for grant in self._grants)
        self._bound = 2 * self._kept + SLACK

    def presented(self, held: set[int]) -> list[pb.HeldGrant]:
        """The grants of which something is held; if they name too many attempts, the shortest of them."""
        self.forget_all_but(held)
        found, left = [], MOST_PRESENTED
        for nodes, attempts, proof in sorted(self._grants, key=lambda grant: len(grant.attempts)):
            left -= len(attempts)
            if left < 0:
                break
            found.append(pb.HeldGrant(node=nodes, attempt=attempts, proof=proof))
        return found
