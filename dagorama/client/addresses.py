"""The addresses of the broker: the hosts of the settings as people read them, and as the target of a channel.

One host is left to gRPC, which looks its name up whenever it connects. The names of several hosts are looked up once,
when a channel is made: gRPC tries the addresses in this order, and goes on to the next one if a connection is refused,
or is not established within a quarter of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagorama.errors import BrokerUnavailable
from dagorama.logging import get_logger
from dagorama.settings.hosts import split_hosts

if TYPE_CHECKING:
    from dagorama.settings import Settings


def address(settings: Settings) -> str:
    """Return the address of the broker for people: the hosts as they were given, each with the port."""
    return ", ".join(_with_port(host, settings.port) for host in split_hosts(settings.host))


def target(settings: Settings) -> str:
    """Return what to connect to, in the form of grpc. Raises BrokerUnavailable if no host can be looked up."""
    hosts = split_hosts(settings.host)
    return _with_port(hosts[0], settings.port) if len(hosts) == 1 else _target_of_all(hosts, settings)


def hosts_elsewhere(settings: Settings) -> list[str]:
    """Return the hosts that may be other machines."""
    return [host for host in split_hosts(settings.host) if not is_loopback(host)]


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine; localhost is the only name that counts."""
    from ipaddress import ip_address  # a millisecond of a start that opens no channel

    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _target_of_all(hosts: tuple[str, ...], settings: Settings) -> str:
    found: list[str] = []
    failures: list[str] = []
    for host in hosts:
        try:
            found += addresses_of(host)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of the DNS can be like this
            failures.append(f"{host} ({error.strerror if isinstance(error, OSError) else 'not a valid name'})")
    if not found:
        raise BrokerUnavailable(
            f"no broker answers at {address(settings)}: none of the hosts can be looked up: {', '.join(failures)};"
            " set DAGORAMA_HOST and DAGORAMA_PORT to the address of the broker",
            "UNAVAILABLE",
        )
    if failures:
        get_logger().warning("cannot look up %s; trying only the other hosts", ", ".join(failures))
    return _written(list(dict.fromkeys(found)), settings.port)


def addresses_of(host: str) -> list[str]:
    """Return the addresses of a host, in the order of the system; raise OSError, or UnicodeError."""
    from socket import SOCK_STREAM, getaddrinfo

    # The fourth part of an IPv6 address is its interface, without which a link-local one leads nowhere.
    return [
        f"{str(where[0]).partition('%')[0]}%25{where[3]}" if len(where) == 4 and where[3] else str(where[0])
        for *_, where in getaddrinfo(host, None, type=SOCK_STREAM)
    ]


def _written(addresses: list[str], port: int) -> str:
    """Return the target for these addresses. All must be of one family, so one of IPv6 makes the others IPv6 too."""
    if not any(":" in each for each in addresses):
        return "ipv4:" + ",".join(f"{each}:{port}" for each in addresses)
    mapped = (each if ":" in each else f"::ffff:{each}" for each in addresses)
    return "ipv6:" + ",".join(f"[{each}]:{port}" for each in mapped)
