"""Requests to run nodes with other code: the holder of a signing key signs what the broker proposes."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import Connection
from dagorama.errors import RequestRejected
from dagorama.values.rebind import sign
from dagorama.values.signing import keyring


def rebind(broker: Connection, request: pb.RebindRequest) -> tuple[pb.RebindReply, pb.Rebinding | None]:
    """Run unfinished nodes of a function with other code; sign exactly what the broker proposes.

    Returns the signed statement, or None if there are no such nodes. Raises RequestRejected if the broker proposes
    code that the request does not name.
    """
    proposed = _proposed_rebinding(broker, request)
    named = request.from_hash
    _refuse_unnamed("hash", [proposed.hash], [request.hash] if request.hash else [])
    _refuse_unnamed("from-hash", [code.partition(" ")[0] for code in proposed.made_with], named)
    if not proposed.made_with:
        return proposed, None
    rebinding = pb.Rebinding(
        function=request.function, made_with=proposed.made_with, hash=proposed.hash, instance=request.instance
    )
    signed = sign(rebinding, keyring())
    asked = pb.RebindRequest(function=request.function, hash=proposed.hash, instance=request.instance, rebinding=signed)
    asked.from_hash.extend(named)
    return broker.rebind(asked), rebinding


def _proposed_rebinding(broker: Connection, request: pb.RebindRequest) -> pb.RebindReply:
    """Return the nodes that would be run with other code; change nothing."""
    look = pb.RebindRequest()
    look.CopyFrom(request)
    look.look = True
    return broker.rebind(look)


def _refuse_unnamed(option: str, found: Sequence[str], named: Sequence[str]) -> None:
    """Raise RequestRejected if a proposed hash is not among the named ones; without named ones, accept all."""
    more = [code_hash for code_hash in dict.fromkeys(found) if code_hash not in named]
    if named and more:
        raise RequestRejected(
            f"this would also sign for code that you did not name: {', '.join(more)}; name it"
            f" (--{option} {more[0]}) or name none",
            "FAILED_PRECONDITION",
        )


def retry(broker: Connection, request: pb.RetryRequest) -> pb.RetryReply:
    """Rerun failed nodes; with `new_code`, sign for this instance that the deployed code may run them.

    With `downstream`, named nodes that have got a signal wait for another one.
    """
    if request.new_code or (request.downstream and request.node):
        found = _look(broker, request)
        request.waits.extend(found.waits)
        if request.new_code:
            ring = keyring()
            request.rebindings.extend(sign(_deployed(each, request.instance), ring) for each in found.rebindable)
    return broker.retry(request)


def _look(broker: Connection, request: pb.RetryRequest) -> pb.RetryReply:
    """Return the code that a retry would run nodes with, and the nodes that would wait again; change nothing."""
    look = pb.RetryRequest()
    look.CopyFrom(request)
    look.look = True
    return broker.retry(look)


def _deployed(found: pb.Rebindable, instance: bytes) -> pb.Rebinding:
    return pb.Rebinding(function=found.function, made_with=found.made_with, deployed=True, instance=instance)
