"""Who makes the call that is being handled: its token, and the name under which it gets a share of the limits."""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import unquote

from dagorama_broker.rpc.tokens import Token

#: The token of the call that is being handled; None if no tokens are required.
caller: ContextVar[Token | None] = ContextVar("caller", default=None)
#: The name that `sharer_of` returns for the call that is being handled.
sharer: ContextVar[str] = ContextVar("sharer", default="")


def sharer_of(token: Token | None, peer: str) -> str:
    """Return the name under which a caller gets a share of the broker's limits: its token's or its host's."""
    return host_of(peer) if token is None else f"token:{token.name}"


@lru_cache(4096)  # all calls of a connection come from the same address
def host_of(peer: str) -> str:
    """Return the host in an address as gRPC writes it ("ipv4:10.0.0.7:51234"); of IPv6, the network of 64 bits."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0]
    if family != "ipv6":
        return f"{family}:{host}"
    try:
        address = IPv6Address(host.strip("[]").partition("%")[0])
    except ValueError:
        return peer
    return f"ipv4:{address.ipv4_mapped}" if address.ipv4_mapped else f"ipv6:{int(address) >> 64:016x}"
