"""Proofs of grants: after a lost connection or a restart, a worker's claims are restored only with a proof.

A worker's ID is a commitment to a secret that only the worker and its broker know, so that the ID, which others can
read, is no credential. Each grant carries a MAC under the store's secret over the worker's ID and what was granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest
from struct import pack
from typing import NamedTuple

from dagorama_broker.errors import InvalidArgument, PermissionDenied

SECRET_BYTES = 32  #: of a worker
PROOF_BYTES = 16
#: Attempts that the presented grants of one worker name in all, held or not; about a megabyte on the wire.
MOST_PRESENTED = 1 << 17

_PERSON = b"dagorama grant"


class PresentedGrant(NamedTuple):
    """An earlier grant, as a worker presents it when it connects again."""

    nodes: Sequence[int]
    attempts: Sequence[int]
    proof: bytes


class Proofs:
    def __init__(self, secret: bytes) -> None:
        """`secret` is the store's; it does not leave this object."""
        self._secret = secret

    def __repr__(self) -> str:
        return "<proofs of grants>"

    def of(self, worker: bytes, nodes: Sequence[int], attempts: Sequence[int]) -> bytes:
        """Return the proof that this worker was granted these nodes under these attempts, in one grant."""
        content = pack(f"<16s{len(nodes) + len(attempts)}Q", worker, *nodes, *attempts)
        return blake2b(content, digest_size=PROOF_BYTES, key=self._secret, person=_PERSON).digest()

    def proven(self, worker: bytes, grants: Sequence[PresentedGrant]) -> set[tuple[int, int]]:
        """Return each (node key, attempt) that the worker proves was granted to it.

        Raises InvalidArgument if there are too many, or the columns of a grant have different lengths.
        """
        _check_grants(grants)
        found: set[tuple[int, int]] = set()
        for grant in grants:
            if compare_digest(grant.proof, self.of(worker, grant.nodes, grant.attempts)):
                found.update(zip(grant.nodes, grant.attempts, strict=True))
        return found


def check_secret(worker: bytes, secret: bytes) -> None:
    """Raise InvalidArgument or PermissionDenied if a secret does not fit the worker's ID."""
    if len(secret) != SECRET_BYTES:
        raise InvalidArgument(f"a worker's secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not compare_digest(id_of(secret), worker):
        raise PermissionDenied(
            "the worker's ID does not fit its secret: a worker's ID is the first 16 bytes of the SHA-256 of its secret"
        )


def id_of(secret: bytes) -> bytes:
    """Return the ID of the worker that has this secret."""
    return sha256(secret).digest()[:16]


def _check_grants(grants: Iterable[PresentedGrant]) -> None:
    presented = 0
    for grant in grants:
        if len(grant.nodes) != len(grant.attempts):
            raise InvalidArgument("the columns of a grant that the worker presents have different lengths")
        presented += len(grant.attempts)
    if presented > MOST_PRESENTED:
        raise InvalidArgument(f"the worker presents grants of {presented:,} attempts; {MOST_PRESENTED:,} are allowed")
