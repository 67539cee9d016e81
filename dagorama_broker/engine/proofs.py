"""Proofs of grants: what a worker presents after a lost connection or a restart is believed with one, and not without.

A worker's id is a commitment to a secret that only the worker and its broker know, so that an id that others can read
is no credential. Each grant carries a MAC under the store's secret over the worker's id and what was granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest
from struct import pack

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import Malformed, NotPermitted

SECRET_BYTES = 32  #: of a worker
PROOF_BYTES = 16
#: Attempts that the presented grants of one worker name in all, held or not; about a megabyte on the wire.
MOST_PRESENTED = 1 << 17

_PERSON = b"dagorama grant"


class Proofs:
    """`secret` is the store's; it does not leave this object."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "<proofs of grants>"

    def of(self, worker: bytes, nodes: Sequence[int], attempts: Sequence[int]) -> bytes:
        """The proof that this worker was granted these nodes under these attempts, in one grant."""
        content = pack(f"<16s{len(nodes) + len(attempts)}Q", worker, *nodes, *attempts)
        return blake2b(content, digest_size=PROOF_BYTES, key=self._secret, person=_PERSON).digest()

    def proven(self, hello: pb.Hello) -> set[tuple[int, int]]:
        """Each (node key, attempt) of which the worker proves that it was granted them.

        Raises Malformed if there are too many, or the columns of a grant have different lengths.
        """
        if not hello.secret:
            return set()
        _check_grants(hello.grants)
        found: set[tuple[int, int]] = set()
        for grant in hello.grants:
            if compare_digest(grant.proof, self.of(hello.worker, grant.node, grant.attempt)):
                found.update(zip(grant.node, grant.attempt, strict=True))
        return found


def check_secret(hello: pb.Hello) -> None:
    """Raises Malformed or NotPermitted if the worker's secret does not fit its id. It may have none."""
    if not hello.secret:
        return
    if len(hello.secret) != SECRET_BYTES:
        raise Malformed(f"a worker's secret has {SECRET_BYTES} bytes, not {len(hello.secret)}")
    if not compare_digest(id_of(hello.secret), hello.worker):
        raise NotPermitted(
            "the worker's id does not fit its secret: a worker's id is the first 16 bytes of the SHA-256 of its secret"
        )


def id_of(secret: bytes) -> bytes:
    """The id of the worker that has this secret."""
    return sha256(secret).digest()[:16]


def _check_grants(grants: Iterable[pb.HeldGrant]) -> None:
    presented = 0
    for grant in grants:
        if len(grant.node) != len(grant.attempt):
            raise Malformed("the columns of a grant that the worker presents have different lengths")
        presented += len(grant.attempt)
    if presented > MOST_PRESENTED:
        raise Malformed(f"the worker presents grants of {presented:,} attempts; {MOST_PRESENTED:,} are allowed")
