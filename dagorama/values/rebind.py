"""Rebindings: signed statements that nodes may be run with other code than they were created with.

A rebinding names a function, the code that its nodes were created with, the code that may run them, and one instance or
all. It is sent with each of these nodes, and the worker that runs the node verifies it.

The rule: only a verified rebinding decides which code may run a node, never the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import gmtime, strftime, time
from typing import NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.errors import TamperedValue, UnverifiedValue
from dagorama.values.signing import REBINDING, Keyring

VERSION = 1
_AGAIN = "rebind it again, by `dagorama rebind` or `dagorama retry --new-code`, with a key that the workers hold"


class Wanted(NamedTuple):
    """A node that the broker asks a worker to run with other code than it was created with."""

    id: bytes
    instance: bytes
    function: str
    made_with: str  #: in the form of `code_text`
    code: str  #: the code to run it with, in the same form; its hash is empty if the worker must name its own


# --- signing ----------------------------------------------------------------------------------------


def sign(rebinding: pb.Rebinding, ring: Keyring) -> pb.SignedRebinding:
    """Sign a rebinding with the current time."""
    rebinding.version, rebinding.signed_at = VERSION, time()
    signed = rebinding.SerializeToString()
    return pb.SignedRebinding(rebinding=signed, key_id=ring.signs_under, mac=ring.sign_statement(signed, REBINDING))


# --- checking ---------------------------------------------------------------------------------------


def check_rebinding(signed: pb.SignedRebinding | None, wanted: Wanted, ring: Keyring) -> None:
    """Check that the holder of a key allows the wanted code; call this before the function is looked up or imported.

    Raises UnverifiedValue if there is no rebinding or its key is not held here, TamperedValue if it was changed or
    allows something else.
    """
    what = f"the rebinding of node {wanted.id.hex()}"
    if signed is None:
        raise UnverifiedValue(
            f"node {wanted.id.hex()} would be run with other code than it was created with, and no signed rebinding "
            f"allows it: {_AGAIN}"
        )
    try:
        ring.check_statement(signed.rebinding, REBINDING, signed.key_id, signed.mac, what)
    except UnverifiedValue as error:
        raise UnverifiedValue(f"{error}: {_AGAIN}") from None
    rebinding = pb.Rebinding.FromString(signed.rebinding)
    if rebinding.version != VERSION:
        raise UnverifiedValue(f"{what} has version {rebinding.version}, and {VERSION} is known here: update dagorama")
    why = _why_not(rebinding, wanted)
    if why:
        raise TamperedValue(f"{what} was signed on {_day(rebinding.signed_at)} and {why}")


def _why_not(rebinding: pb.Rebinding, wanted: Wanted) -> str:
    """Return why a rebinding does not allow the wanted code; empty if it does."""
    if rebinding.function != wanted.function:
        return f"is for {rebinding.function}, not for {wanted.function}"
    if wanted.made_with not in rebinding.made_with:
        return f"is for nodes made with {_hashes(rebinding.made_with)}, not with {_hashes([wanted.made_with])}"
    if rebinding.instance and rebinding.instance != wanted.instance:
        return f"is for instance {_instance(rebinding.instance)}, not for {_instance(wanted.instance)}"
    # Rebound nodes do not name the code of their class: their child nodes are bound to the code that runs them.
    if rebinding.deployed and " " not in wanted.code:
        return ""
    if rebinding.deployed or not wanted.code or rebinding.hash != wanted.code:
        return f"allows {'the code that is deployed' if rebinding.deployed else rebinding.hash}, not {wanted.code!r}"
    return ""


def _hashes(codes: Sequence[str]) -> str:
    return ", ".join(code.partition(" ")[0] for code in codes)


def _instance(instance: bytes) -> str:
    return str(UUID(bytes=instance)) if len(instance) == 16 else instance.hex()


def _day(seconds: float) -> str:
    try:
        return strftime("%Y-%m-%d", gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown day"
