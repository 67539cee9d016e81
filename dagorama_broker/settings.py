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
from pathlib import Path
from re import fullmatch
from typing import TypeVar

from dagorama_broker.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("text", "json")
DEFAULT_PORT = 50051
HIGHEST_PORT = 65535
LONGEST_NUMBER = 18  #: digits
#: What gRPC takes as a number, with room for what is added to it; a thousandth of that in seconds.
MOST = 2_000_000_000
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
    tokens: str = ""  #: DAGORAMA_TOKENS_FILE, --tokens: who may call; empty: whoever reaches the port
    tls_cert: str = ""  #: DAGORAMA_BROKER_TLS_CERT, --tls-cert: the broker's certificate, and those above it, as PEM
    tls_key: str = ""  #: DAGORAMA_BROKER_TLS_KEY, --tls-key: its key
    tls_client_ca: str = ""  #: DAGORAMA_BROKER_TLS_CLIENT_CA, --tls-client-ca: callers present a certificate of its

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
    max_message: int = MESSAGE_LIMIT  #: DAGORAMA_MAX_MESSAGE: bytes of one message that the broker takes
    max_sources: int = 1_000_000  #: DAGORAMA_MAX_SOURCES: sources of one node
    max_traceback: int = 256 << 10  #: DAGORAMA_MAX_TRACEBACK: characters kept of one traceback
    max_streams: int = 10_000  #: DAGORAMA_MAX_STREAMS: calls open at once
    max_connections: int = 10_000  #: DAGORAMA_MAX_CONNECTIONS: connections open at once
    max_memory: int = 0  #: DAGORAMA_MAX_MEMORY: bytes held that turn submissions away; 0: 80 % of what there is
    cache: int = 256 << 20  #: DAGORAMA_CACHE: bytes of arguments, and of values, kept at hand
    handshake: float = 10.0  #: DAGORAMA_HANDSHAKE: seconds that a new connection has to say what it wants

    retention: float = 86_400.0  #: DAGORAMA_RETENTION: seconds that an instance is kept when it has ended; or never
    retention_failed: float = 604_800.0  #: DAGORAMA_RETENTION_FAILED: the same for one with a failed node
    large_grace: float = 3_600.0  #: DAGORAMA_LARGE_GRACE: seconds that a large value is kept which no node names

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise SettingsError(
                "--tls-cert and --tls-key go together, and --tls-client-ca with both (DAGORAMA_BROKER_TLS_CERT, _KEY,"
                " _CLIENT_CA)"
            )
        if self.lacks and not self.insecure:
            raise SettingsError(
                f"listening on {self.host} lets other machines in, and without {self.lacks} strangers too: give"
                " --tokens, --tls-cert and --tls-key (DAGORAMA_TOKENS_FILE, DAGORAMA_BROKER_TLS_CERT,"
                " DAGORAMA_BROKER_TLS_KEY), stay on 127.0.0.1, or say --insecure (DAGORAMA_INSECURE=1)"
            )
        if self.heartbeat >= self.lease:
            raise SettingsError(
                f"a heartbeat every {self.heartbeat:g} s does not keep a lease of {self.lease:g} s:"
                " DAGORAMA_HEARTBEAT has to be below DAGORAMA_LEASE"
            )
        if self.large_from > MESSAGE_LIMIT // 2:
            raise SettingsError(f"DAGORAMA_LARGE_FROM has to be at most {MESSAGE_LIMIT // 2}, half of a message")

        if self.max_message < MESSAGE_LIMIT:
            raise SettingsError(f"DAGORAMA_MAX_MESSAGE has to be at least {MESSAGE_LIMIT}, which is what clients send")

    @property
    def lacks(self) -> str:
        """What a broker needs that serves other machines, and this one does not have; empty: nothing."""
        needed = () if is_loopback(self.host) else (("tokens", self.tokens), ("TLS", self.tls_cert))
        return " and ".join(what for what, there in needed if not there)

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
        tokens: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_client_ca: str | None = None,
    ) -> Settings:
        """What the options say, else the environment, else the defaults. Raises SettingsError in one sentence."""
        default = cls()
        return cls(
            host=_host("DAGORAMA_BIND", host, default.host),
            port=_own_port(port, default.port),
            store=_read("DAGORAMA_STORE", store, _text, "") or default_store(),
            log_level=_read("DAGORAMA_LOG_LEVEL", log_level, _level, default.log_level),
            log_format=_read("DAGORAMA_LOG_FORMAT", log_format, _format, default.log_format),
            insecure=_read("DAGORAMA_INSECURE", insecure, _flag, default.insecure),
            tokens=_read("DAGORAMA_TOKENS_FILE", tokens, _text, default.tokens),
            tls_cert=_read("DAGORAMA_BROKER_TLS_CERT", tls_cert, _text, default.tls_cert),
            tls_key=_read("DAGORAMA_BROKER_TLS_KEY", tls_key, _text, default.tls_key),
            tls_client_ca=_read("DAGORAMA_BROKER_TLS_CLIENT_CA", tls_client_ca, _text, default.tls_client_ca),
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
            max_message=_read("DAGORAMA_MAX_MESSAGE", None, _small_count, default.max_message),
            max_sources=_read("DAGORAMA_MAX_SOURCES", None, _count, default.max_sources),
            max_traceback=_read("DAGORAMA_MAX_TRACEBACK", None, _count, default.max_traceback),
            max_streams=_read("DAGORAMA_MAX_STREAMS", None, _small_count, default.max_streams),
            max_connections=_read("DAGORAMA_MAX_CONNECTIONS", None, _small_count, default.max_connections),
            max_memory=_read("DAGORAMA_MAX_MEMORY", None, _count, default.max_memory),
            cache=_read("DAGORAMA_CACHE", None, _count, default.cache),
            handshake=_read("DAGORAMA_HANDSHAKE", None, _handshake, default.handshake),
        )


def broker_address(host: str | None = None, port: int | None = None) -> tuple[str, int]:
    """Where to look for a broker: what is given, else DAGORAMA_HOST and DAGORAMA_PORT, else this machine."""
    return _host("DAGORAMA_HOST", host, "127.0.0.1"), _own_port(port, DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class Way:
    """To a broker that runs elsewhere, for those who ask it something: as spawners and workers are told it."""

    host: str
    port: int
    tls_ca: str = ""  #: DAGORAMA_TLS_CA
    tls_cert: str = ""  #: DAGORAMA_TLS_CERT
    tls_key: str = ""  #: DAGORAMA_TLS_KEY
    tls_name: str = ""  #: DAGORAMA_TLS_NAME: in the broker's certificate

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key) or ((self.tls_cert or self.tls_name) and not self.tls_ca):
            raise SettingsError("DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY go together, and with DAGORAMA_TLS_CA")

    @classmethod
    def from_env(cls, host: str | None = None, port: int | None = None, **tls: str | None) -> Way:
        """What the options say, else the environment. Raises SettingsError."""
        names = ("tls_ca", "tls_cert", "tls_key", "tls_name")
        found = [_read(f"DAGORAMA_{name.upper()}", tls.get(name), _text, "") for name in names]
        return cls(*broker_address(host, port), *found)


def default_store() -> str:
    """A SQLite file in the user's state folder. Raises SettingsError for a user without a home folder."""
    from platformdirs import user_state_path

    try:
        folder = user_state_path("dagorama")
    except RuntimeError:  # of pathlib's expanduser()
        folder = Path()
    # os.path.expanduser() leaves a "~" as it is when it cannot be told.
    if not folder.is_absolute():
        raise SettingsError(
            "no store is set, and this user has no home folder to keep one in: set DAGORAMA_STORE (--store) to"
            " sqlite:///PATH, or HOME to a folder"
        )
    return f"sqlite:///{folder / 'broker.sqlite3'}"


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


def _host(variable: str, option: str | None, default: str) -> str:
    """A host name or an address, an IPv6 one without its brackets; an error names the one that is wrong."""
    if option is None:
        return _read(variable, None, _host_name, default)
    try:
        return _host_name(option.strip())
    except ValueError as error:
        raise SettingsError(f"--host is {option!r}: it has to be {error}") from None


def _own_port(option: int | None, default: int) -> int:
    """What is set; Kubernetes' tcp://IP:PORT, in the pods beside a Service that is called dagorama, is not."""
    if option is None and fullmatch(r"(tcp|udp|sctp)://\S*", environ.get("DAGORAMA_PORT", "").strip()):
        return default
    return _read("DAGORAMA_PORT", option, _port, default)


# Each of these raises ValueError with what the value has to be.


def _text(text: str) -> str:
    return text


def _host_name(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _is_ipv6(bare) or fullmatch(r"[\w.-]+", text):
        return bare
    raise ValueError("the name or the address of a host, without a scheme or a port")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _port(text: str) -> int:
    # isdecimal() also accepts other scripts' digits; int() reads those as well, and refuses thousands of them.
    if not text.isdecimal() or len(text) > LONGEST_NUMBER or int(text) > HIGHEST_PORT:
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
    if not text.isdecimal() or len(text) > LONGEST_NUMBER or not int(text):
        raise ValueError("a whole number above 0")
    return int(text)


def _small_count(text: str) -> int:
    count = _count(text)
    if count > MOST:
        raise ValueError(f"a whole number from 1 to {MOST}")
    return count


def _handshake(text: str) -> float:
    seconds = _seconds(text)
    if not 0.001 <= seconds <= MOST // 1000:
        raise ValueError(f"a number of seconds from 0.001 to {MOST // 1000}")
    return seconds
