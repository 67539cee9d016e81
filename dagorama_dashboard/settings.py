"""The settings of a dashboard: its address, the names that it answers to, and its offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from os import environ

from dagorama.client.addresses import is_loopback
from dagorama.errors import SettingsError
from dagorama.settings import HIGHEST_PORT, Settings
from dagorama.settings.hosts import checked_host

DEFAULT_PORT = 8088
#: Names of this machine in the header Host.
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """The settings of one dashboard; errors name the option or the variable to change."""

    broker: Settings  #: the broker's address and its TLS; a token in it is not used
    bind: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    allowed_hosts: frozenset[str] = frozenset()  #: names for the header Host, besides the ones of this machine
    behind_proxy: bool = False  #: a proxy in front of it speaks TLS with the browsers
    new_code: bool = False  #: offer retries with the deployed code, signed with the key of this machine
    tls_cert: str = ""
    tls_key: str = ""

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise SettingsError("--tls-cert and --tls-key go together: give both, or neither")
        if not (self.is_local or self.is_encrypted):
            raise SettingsError(
                f"tokens would be sent to {self.bind} in clear text: give --tls-cert and --tls-key, or --behind-proxy"
                " if a proxy in front of the dashboard speaks TLS with the browsers"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.bind)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach it, by themselves or through a proxy."""
        return not self.is_local or self.behind_proxy

    @property
    def is_encrypted(self) -> bool:
        """Whether browsers use https."""
        return bool(self.tls_cert) or self.behind_proxy

    def accepts_host(self, host: str) -> bool:
        """Return whether the header Host names this dashboard.

        Any other name may be one that an attacker has pointed at this address (DNS rebinding). Of a dashboard that
        other machines can reach, an address is accepted too, because no name was resolved then.
        """
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        if name in self.allowed_hosts or (name in LOOPBACK_NAMES and (self.is_local or self.behind_proxy)):
            return True
        return not self.is_local and not self.behind_proxy and _is_address(name)


def dashboard_settings(
    broker: Settings,
    bind: str | None,
    port: int | None,
    allowed_hosts: Sequence[str],
    *,
    behind_proxy: bool = False,
    new_code: bool = False,
    tls_cert: str = "",
    tls_key: str = "",
) -> DashboardSettings:
    """Return the settings of options and variables. Raises SettingsError."""
    return DashboardSettings(
        broker,
        checked_host(bind, "--bind") if bind else _bind_of_variable(),
        _port_of_variable() if port is None else port,
        frozenset(checked_host(host, "--allowed-host").lower() for host in allowed_hosts),
        behind_proxy,
        new_code,
        tls_cert,
        tls_key,
    )


def described_settings() -> list[tuple[str, object, str]]:
    """Return the variable, the value and the origin of each setting of a dashboard that is started here.

    `dagorama config show` calls this through an entry point. Raise SettingsError if a value is wrong.
    """
    found = {"DAGORAMA_DASHBOARD_BIND": _bind_of_variable(), "DAGORAMA_DASHBOARD_PORT": _port_of_variable()}
    return [
        (variable, value, "environment" if environ.get(variable, "").strip() else "default")
        for variable, value in found.items()
    ]


def _bind_of_variable() -> str:
    text = environ.get("DAGORAMA_DASHBOARD_BIND", "").strip()
    return checked_host(text, "DAGORAMA_DASHBOARD_BIND") if text else "127.0.0.1"


def _port_of_variable() -> int:
    text = environ.get("DAGORAMA_DASHBOARD_PORT", "").strip()
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= HIGHEST_PORT):
        raise SettingsError(f"DAGORAMA_DASHBOARD_PORT is {text!r}: it must be a port, 0 to {HIGHEST_PORT}")
    return int(text)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
