"""Adoptions: what a holder of a signing key signs so that nodes may be run by other code than they were made with.

An adoption names a function, the code that its nodes were made with, the code that may run them, and one instance or
all. It is sent with each node that it is for, and the worker that runs the node checks it.

The rule: only a checked adoption says which code may run a node, never the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import gmtime, strftime, time
from typing import NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.errors import TamperedValue, UncheckableValue
from dagorama.values.signing import ADOPTION, Keyring

VERSION = 1
_AGAIN = "adopt it again, by `dagorama rebind` or `dagorama retry --new-code`, with a key that the workers hold"


class Wanted(NamedTuple):
    """A node that a worker is to run by other code than it was made with, as the broker says."""

    id: bytes
    instance: bytes
    function: str
    made_with: str  #: as `code_text` has it
    code: str  #: that is to run it, likewise; its hash is empty if the broker asks which one is here


# --- signing ----------------------------------------------------------------------------------------


def sign(adoption: pb.Adoption, ring: Keyring) -> pb.SignedAdoption:
    """Sign an adoption as of now."""
    adoption.version, adoption.signed_at = VERSION, time()
    signed = adoption.SerializeToString()
    return pb.SignedAdoption(adoption=signed, key_id=ring.signs_under, mac=ring.sign_statement(signed, ADOPTION))


# --- checking ---------------------------------------------------------------------------------------


def check_adoption(signed: pb.SignedAdoption | None, wanted: Wanted, ring: Keyring) -> None:
    """Check that a key holder allows what is wanted; nothing of the function was looked up or imported by then.

    Raises UncheckableValue if there is no adoption or it is signed under a key that is not held here, TamperedValue if
    it was not signed like this or is for something else.
    """
    what = f"the adoption of node {wanted.id.hex()}"
    if signed is None:
        raise UncheckableValue(
            f"node {wanted.id.hex()} would be run by other code than it was made with, and no signed adoption allows "
            f"it: {_AGAIN}"
        )
    try:
        ring.check_statement(signed.adoption, ADOPTION, signed.key_id, signed.mac, what)
    except UncheckableValue as error:
        raise UncheckableValue(f"{error}: {_AGAIN}") from None
    adoption = pb.Adoption.FromString(signed.adoption)
    if adoption.version != VERSION:
        raise UncheckableValue(f"{what} is of version {adoption.version}, and {VERSION} is known here: update dagorama")
    why = _why_not(adoption, wanted)
    if why:
        raise TamperedValue(f"{what} was signed on {_day(adoption.signed_at)} and {why}")


def _why_not(adoption: pb.Adoption, wanted: Wanted) -> str:
    """Return why an adoption does not allow what is wanted; empty: it does."""
    if adoption.function != wanted.function:
        return f"is for {adoption.function}, not for {wanted.function}"
    if wanted.made_with not in adoption.made_with:
        return f"is for nodes made with {_hashes(adoption.made_with)}, not with {_hashes([wanted.made_with])}"
    if adoption.instance and adoption.instance != wanted.instance:
        return f"is for instance {_instance(adoption.instance)}, not for {_instance(wanted.instance)}"
    # Adopted nodes name no code of their class: what they make is bound to the code that runs them.
    if adoption.deployed and " " not in wanted.code:
        return ""
    if adoption.deployed or not wanted.code or adoption.hash != wanted.code:
        return f"allows {'the code that is deployed' if adoption.deployed else adoption.hash}, not {wanted.code!r}"
    return ""


def _hashes(codes: Sequence[str]) -> str:
    return ", ".join(code.partition(" ")[0] for code in codes)


def _instance(id: bytes) -> str:
    return str(UUID(bytes=id)) if len(id) == 16 else id.hex()


def _day(seconds: float) -> str:
    try:
        return strftime("%Y-%m-%d", gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown day"
