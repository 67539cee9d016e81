"""Requests that let other code run nodes: a key holder signs what the broker says there is to sign."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import Connection
from dagorama.errors import RefusedByBroker
from dagorama.values.rebind import sign
from dagorama.values.signing import keyring


def adopt(broker: Connection, request: pb.AdoptRequest) -> tuple[pb.AdoptReply, pb.Adoption | None]:
    """Have unfinished nodes of a function run by other code; sign exactly what the broker says there is to adopt.

    Returns what was signed, or None if there is nothing to adopt. Raises RefusedByBroker if the broker would have more
    signed than the request names.
    """
    found = broker.look_at_adoption(request)
    named = getattr(request, "from")
    _refuse_unnamed("hash", [found.hash], [request.hash] if request.hash else [])
    _refuse_unnamed("from-hash", [code.partition(" ")[0] for code in found.made_with], named)
    if not found.made_with:
        return found, None
    adoption = pb.Adoption(
        function=request.function, made_with=found.made_with, hash=found.hash, instance=request.instance
    )
    signed = sign(adoption, keyring())
    asked = pb.AdoptRequest(function=request.function, hash=found.hash, instance=request.instance, adoption=signed)
    getattr(asked, "from").extend(named)
    return broker.adopt(asked), adoption


def _refuse_unnamed(option: str, found: Sequence[str], named: Sequence[str]) -> None:
    """Raise RefusedByBroker if a hash was found that is not among those that were named, if any were."""
    more = [hash for hash in dict.fromkeys(found) if hash not in named]
    if named and more:
        raise RefusedByBroker(
            f"this would also sign for code that was not named: {', '.join(more)}; name it"
            f" (--{option} {more[0]}) or name none",
            "FAILED_PRECONDITION",
        )


def retry(broker: Connection, request: pb.RetryRequest) -> pb.RetryReply:
    """Have failed nodes run again; with `new_code` by the code that is deployed, which is signed for this instance."""
    if request.new_code:
        ring = keyring()
        request.adoptions.extend(
            sign(
                pb.Adoption(
                    function=found.function, made_with=found.made_with, deployed=True, instance=request.instance
                ),
                ring,
            )
            for found in broker.look_at_retry(request).adoptable
        )
    return broker.retry(request)
