"""How a broker is set up: the only place in `dagorama_broker` that reads the environment.

An option of the command line comes before its variable, an empty variable counts as unset, and an error names whichever
of the two is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from os import environ
from typing import TypeVar

from dagorama_broker.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("text", "json")
DEFAULT_PORT = 50051
HIGHEST_PORT = 65535
#: Bytes of one message, either way; clients keep to the same.
MESSAGE_LIMIT = 4 << 20

_T = TypeVar("_T")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """One broker's settings. Each is in the environment under the name beside it, some are options as well."""

    host: str = "127.0.0.1"  #: DAGORAMA_BIND, --host: address to listen on
    port: int = DEFAULT_PORT  #: DAGORAMA_PORT, --port: 0 takes any free one
    store: str = "memory://"  #: DAGORAMA_STORE, --store; from_env(): a file in the user's state folder
    log_level: str = "INFO"  #: DAGORAMA_LOG_LEVEL, --log-level
    log_format: str = "text"  #: DAGORAMA_LOG_FORMAT, --log-format: text or json
    insecure: bool = False  #: DAGORAMA_INSECURE, --insecure: serve other machines without tokens and TLS

    lease: float = 30.0  #: DAGORAMA_LEASE: seconds of silence after which a worker counts as lost
    heartbeat: float = 10.0  #: DAGORAMA_HEARTBEAT: seconds between a worker's heartbeats
    original_lease: float = 90.0  #: DAGORAMA_ORIGINAL_LEASE: the lease of workers of the original's calls
    cancel_grace: float = 5.0  #: DAGORAMA_CANCEL_GRACE: seconds between telling a run to stop and stopping it
    reconnect_wait: float = 2.0  #: DAGORAMA_RECONNECT_WAIT: seconds that a restarted broker waits for its workers

    large_from: int = 256 << 10  #: DAGORAMA_LARGE_FROM: bytes from which a value travels and is kept apart
    shared_files: bool = True  #: DAGORAMA_SHARED_FILES: clients of the same user on this machine have them as files
    max_nodes: int = 1_000_000  #: DAGORAMA_MAX_NODES: nodes made by one call
    max_submission: int = 256 << 20  #: DAGORAMA_MAX_SUBMISSION: bytes of one call, in all its messages
    max_value: int = 1 << 30  #: DAGORAMA_MAX_VALUE: bytes of one large value

    retention: float = 86_400.0  #: DAGORAMA_RETENTION: seconds that an instance is kept when it has ended; or never
    retention_failed: float = 604_800.0  #: DAGORAMA_RETENTION_FAILED: the same for one with a failed node
    large_grace: float = 3_600.0  #: DAGORAMA_LARGE_GRACE: seconds that a large value is kept which no node names

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.insecure:
            raise SettingsError(
                f"listening on {self.host} lets other machines in, and there are neither tokens nor TLS to keep"
                " strangers out: stay on 127.0.0.1, or say --insecure (DAGORAMA_INSECURE=1)"
            )
        if self.heartbeat >= self.lease:
            raise SettingsError(
                f"a heartbeat every {self.heartbeat:g} s does not keep a lease of {self.lease:g} s:"
                " DAGORAMA_HEARTBEAT has to be below DAGORAMA_LEASE"
            )
        if self.large_from > MESSAGE_LIMIT // 2:
            raise SettingsError(f"DAGORAMA_LARGE_FROM has to be at most {MESSAGE_LIMIT // 2}, half of a message")

    @classmethod
    def from_env(
        cls,
        *,
        host: str | None = None,
        port: int | None = None,
        store: str | None = None,
        log_level: str | None = None,
        log_format: str | None = None,
        insecure: bool | None = None,
    ) -> Settings:
        """What the options say, else the environment, else the defaults. Raises SettingsError in one sentence."""
        default = cls()
        return cls(
            host=_read("DAGORAMA_BIND", host, _text, default.host),
            port=_read("DAGORAMA_PORT", port, _port, default.port),
            store=_read("DAGORAMA_STORE", store, _text, "") or default_store(),
            log_level=_read("DAGORAMA_LOG_LEVEL", log_level, _level, default.log_level),
            log_format=_read("DAGORAMA_LOG_FORMAT", log_format, _format, default.log_format),
            insecure=_read("DAGORAMA_INSECURE", insecure, _flag, default.insecure),
            lease=_read("DAGORAMA_LEASE", None, _seconds, default.lease),
            heartbeat=_read("DAGORAMA_HEARTBEAT", None, _seconds, default.heartbeat),
            original_lease=_read("DAGORAMA_ORIGINAL_LEASE", None, _seconds, default.original_lease),
            cancel_grace=_read("DAGORAMA_CANCEL_GRACE", None, _seconds_or_none, default.cancel_grace),
            reconnect_wait=_read("DAGORAMA_RECONNECT_WAIT", None, _seconds_or_none, default.reconnect_wait),
            large_from=_read("DAGORAMA_LARGE_FROM", None, _count, default.large_from),
            shared_files=_read("DAGORAMA_SHARED_FILES", None, _flag, default.shared_files),
            max_nodes=_read("DAGORAMA_MAX_NODES", None, _count, default.max_nodes),
            max_submission=_read("DAGORAMA_MAX_SUBMISSION", None, _count, default.max_submission),
            max_value=_read("DAGORAMA_MAX_VALUE", None, _count, default.max_value),
            retention=_read("DAGORAMA_RETENTION", None, _seconds_or_never, default.retention),
            retention_failed=_read("DAGORAMA_RETENTION_FAILED", None, _seconds_or_never, default.retention_failed),
            large_grace=_read("DAGORAMA_LARGE_GRACE", None, _seconds, default.large_grace),
        )


def broker_address(host: str | None = None, port: int | None = None) -> tuple[str, int]:
    """Where to look for a broker: what is given, else DAGORAMA_HOST and DAGORAMA_PORT, else this machine."""
    host = _read("DAGORAMA_HOST", host, _text, "127.0.0.1")
    return host, _read("DAGORAMA_PORT", port, _port, DEFAULT_PORT)


def default_store() -> str:
    """A SQLite file in the user's state folder."""
    from platformdirs import user_state_path

    return f"sqlite:///{user_state_path('dagorama') / 'broker.sqlite3'}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this address; of names only localhost is taken on trust."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read(variable: str, option: _T | None, parse: Callable[[str], _T], default: _T) -> _T:
    if option is not None:
        return option
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{variable} is {text!r}: it has to be {error}") from None


# Each of these raises ValueError with what the value has to be.


def _text(text: str) -> str:
    return text


def _port(text: str) -> int:
    # isdecimal() also accepts other scripts' digits; int() reads those as well.
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise ValueError(f"a port number, 0 to {HIGHEST_PORT}")
    return int(text)


def _level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def _format(text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise ValueError(f"one of {', '.join(LOG_FORMATS)}")
    return text.lower()


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("1 or 0")
    return _FLAGS[text.lower()]


def _seconds(text: str) -> float:
    seconds = _seconds_or_none(text)
    if not seconds:
        raise ValueError("a number of seconds above 0")
    return seconds


def _seconds_or_none(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("a number of seconds")
    return seconds


def _seconds_or_never(text: str) -> float:
    if text.lower() == "never":
        return math.inf
    try:
        return _seconds_or_none(text)
    except ValueError:
        raise ValueError("a number of seconds, or never") from None


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number above 0")
    return int(text)
