"""Find out why no broker can be used at a host that has several addresses.

gRPC tries one address after the other, and tells what was wrong with the last one only. For localhost it adds the IPv6
address itself, whose refusal then hides that the certificate of the broker at the IPv4 address is not accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from dagorama.client.addresses import addresses_of
from dagorama.client.certificates import meaning
from dagorama.client.channel import sync_channel
from dagorama.errors import DagoramaError

if TYPE_CHECKING:
    from dagorama.settings import Settings

#: Seconds for one address.
TIMEOUT = 1.0
#: Addresses that are looked at.
MOST_ADDRESSES = 4


def trouble_at_addresses(settings: Settings) -> str:
    """Return why the server at one of several addresses cannot be used; empty if that is not known.

    This connects to each address by itself, and blocks for a few seconds at most.
    """
    found = list(_single(settings))
    if [each.host for each in found] == [settings.host]:  # gRPC has told the reason itself
        return ""
    return next(filter(None, map(_trouble, found)), "")


def _single(settings: Settings) -> Iterator[Settings]:
    """Yield settings for each address. The certificate must still be for the name, not for the address."""
    for host in settings.hosts:
        try:
            found = addresses_of(host)
        except (OSError, UnicodeError):
            continue
        name = settings.tls_name or host
        for each in dict.fromkeys(found[:MOST_ADDRESSES]):
            yield replace(settings, host=each, tls_name=name if settings.tls_ca else "")


def _trouble(settings: Settings) -> str:
    import grpc

    from dagorama.api import broker_pb2
    from dagorama.api.broker_pb2_grpc import BrokerStub

    try:
        with closing(sync_channel(settings)) as channel:
            BrokerStub(channel).GetStatus(broker_pb2.GetStatusRequest(), timeout=TIMEOUT)
    except grpc.RpcError as error:
        details = str(getattr(error, "details", lambda: "")() or "")
        meant = meaning(details)
        return "" if meant == details else meant
    except DagoramaError:
        return ""
    return ""
