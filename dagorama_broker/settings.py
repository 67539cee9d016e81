"""The settings of a broker, and of a client that checks a broker's health, each field with its variable and its help.

An error names the option or the variable to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dagorama.api.contract import MESSAGE_LIMIT
from dagorama_broker.environment import (
    DEFAULT_PORT,
    LEADER_LEASE,
    STORE_PATIENCE,
    described,
    flag,
    format_name,
    grpc_number,
    grpc_seconds,
    host_name,
    lease_seconds,
    level_name,
    plain_text,
    port_number,
    positive_number,
    read_settings,
    seconds,
    seconds_or_never,
    seconds_or_zero,
    setting,
    transfer_name,
)
from dagorama_broker.errors import SettingsError

#: Bytes of one message in either direction; clients use the same limit.


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one broker. Some of them are options of `dagorama-broker serve` as well."""

    host: str = setting(
        "127.0.0.1", "DAGORAMA_BIND", host_name, "Address to listen on; other machines need tokens and TLS"
    )
    port: int = setting(DEFAULT_PORT, "DAGORAMA_PORT", port_number, "Port to listen on; 0 takes any free port")
    #: Without an option and a variable, `from_env` uses a file in the user's state folder.
    store: str = setting(
        "memory://", "DAGORAMA_STORE", plain_text, "URL of the store: sqlite:///PATH, postgresql://..., or memory://"
    )
    values: str = setting(
        "", "DAGORAMA_VALUES", plain_text, "Where large values are: s3://BUCKET/PREFIX, gs:, az:, file:///FOLDER"
    )
    values_transfer: str = setting(
        "direct", "DAGORAMA_VALUES_TRANSFER", transfer_name, "How clients reach an object store: direct, or broker"
    )
    store_patience: float = setting(
        STORE_PATIENCE,
        "DAGORAMA_STORE_PATIENCE",
        seconds,
        "Seconds for which a database that does not answer is tried again",
    )
    leader_lease: float = setting(
        LEADER_LEASE,
        "DAGORAMA_LEADER_LEASE",
        lease_seconds,
        "Seconds after which a standby may replace a broker that is silent",
    )
    log_level: str = setting("INFO", "DAGORAMA_LOG_LEVEL", level_name, "Lowest level that is logged")
    log_format: str = setting("text", "DAGORAMA_LOG_FORMAT", format_name, "Format of the log")
    insecure: bool = setting(False, "DAGORAMA_INSECURE", flag, "Serve other machines without tokens and TLS")
    tokens: str = setting(
        "", "DAGORAMA_TOKENS_FILE", plain_text, "File with the tokens of callers; see `dagorama tokens new`"
    )
    tls_cert: str = setting(
        "", "DAGORAMA_BROKER_TLS_CERT", plain_text, "Serve TLS with this certificate and its chain, a PEM file"
    )
    tls_key: str = setting("", "DAGORAMA_BROKER_TLS_KEY", plain_text, "Private key of the certificate, a PEM file")
    tls_client_ca: str = setting(
        "", "DAGORAMA_BROKER_TLS_CLIENT_CA", plain_text, "Require client certificates signed by this CA, a PEM file"
    )

    health_port: int | None = setting(
        None,
        "DAGORAMA_HEALTH_PORT",
        port_number,
        "Serve /livez and /readyz over HTTP on this port; 0 takes any free port",
    )
    metrics_port: int | None = setting(
        None, "DAGORAMA_METRICS_PORT", port_number, "Serve /metrics over HTTP on this port; 0 takes any free port"
    )
    health_host: str = setting(
        "127.0.0.1", "DAGORAMA_HEALTH_HOST", host_name, "Address of the HTTP ports, which require no token"
    )

    lease: float = setting(30.0, "DAGORAMA_LEASE", seconds, "Seconds of silence after which a worker counts as lost")
    heartbeat: float = setting(10.0, "DAGORAMA_HEARTBEAT", seconds, "Seconds between a worker's heartbeats")
    legacy_lease: float = setting(
        90.0, "DAGORAMA_LEGACY_LEASE", seconds, "Lease of workers of dagorama 0.1.10, in seconds"
    )
    cancel_grace: float = setting(
        5.0, "DAGORAMA_CANCEL_GRACE", seconds_or_zero, "Seconds between signalling a cancelled run and stopping it"
    )
    reconnect_wait: float = setting(
        2.0, "DAGORAMA_RECONNECT_WAIT", seconds_or_zero, "Seconds for which a restarted broker waits for its workers"
    )

    large_value_threshold: int = setting(
        256 << 10,
        "DAGORAMA_LARGE_VALUE_THRESHOLD",
        positive_number,
        "Bytes from which a value is sent and stored separately",
    )
    shared_files: bool = setting(
        True, "DAGORAMA_SHARED_FILES", flag, "Let the user's clients on this machine use large values as files"
    )
    local_socket: bool = setting(
        True, "DAGORAMA_LOCAL_SOCKET", flag, "Let the user's processes on this machine connect by a Unix socket"
    )
    grant_ahead: bool = setting(
        True, "DAGORAMA_GRANT_AHEAD", flag, "Let workers run submitted nodes while their commit is made"
    )
    max_nodes: int = setting(1_000_000, "DAGORAMA_MAX_NODES", positive_number, "Nodes that one call may create")
    max_submission: int = setting(
        256 << 20, "DAGORAMA_MAX_SUBMISSION", positive_number, "Bytes of one submission, in all of its messages"
    )
    max_value: int = setting(1 << 30, "DAGORAMA_MAX_VALUE", positive_number, "Bytes of one large value")
    max_message: int = setting(
        MESSAGE_LIMIT, "DAGORAMA_MAX_MESSAGE", grpc_number, "Bytes of one message that the broker accepts"
    )
    max_sources: int = setting(1_000_000, "DAGORAMA_MAX_SOURCES", positive_number, "Sources of one node")
    max_traceback: int = setting(
        256 << 10, "DAGORAMA_MAX_TRACEBACK", positive_number, "Characters of a traceback that are kept"
    )
    max_streams: int = setting(10_000, "DAGORAMA_MAX_STREAMS", grpc_number, "Calls that may be open at once")
    max_connections: int = setting(
        10_000, "DAGORAMA_MAX_CONNECTIONS", grpc_number, "Connections that may be open at once"
    )
    max_memory: int = setting(
        0, "DAGORAMA_MAX_MEMORY", positive_number, "Bytes of memory above which submissions are refused; 0: 80 % of all"
    )
    cache_bytes: int = setting(
        256 << 20, "DAGORAMA_CACHE_BYTES", positive_number, "Bytes of arguments, and of values, that are cached"
    )
    handshake_timeout: float = setting(
        10.0, "DAGORAMA_HANDSHAKE_TIMEOUT", grpc_seconds, "Seconds that a new connection has for its handshake"
    )

    retention: float = setting(
        86_400.0, "DAGORAMA_RETENTION", seconds_or_never, "Seconds for which an ended instance is kept, or never"
    )
    retention_failed: float = setting(
        604_800.0, "DAGORAMA_RETENTION_FAILED", seconds_or_never,
        "Seconds for which an ended instance with a failed node is kept, or never",
    )  # fmt: skip
    large_grace: float = setting(
        3_600.0, "DAGORAMA_LARGE_GRACE", seconds, "Seconds for which an unreferenced large value is kept"
    )
    logs_max: int = setting(
        1 << 30,
        "DAGORAMA_LOGS_MAX",
        positive_number,
        "Bytes of nodes' logs that are kept; the oldest are removed first",
    )

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise SettingsError(
                "--tls-cert and --tls-key must be set together, and --tls-client-ca only with both"
                " (DAGORAMA_BROKER_TLS_CERT, _KEY, _CLIENT_CA)"
            )
        if self.lacks and not self.insecure:
            raise SettingsError(
                f"refusing to listen on {self.host} without {self.lacks}: pass --tokens, --tls-cert and --tls-key"
                " (DAGORAMA_TOKENS_FILE, DAGORAMA_BROKER_TLS_CERT, DAGORAMA_BROKER_TLS_KEY), bind to 127.0.0.1, or pass"
                " --insecure (DAGORAMA_INSECURE=1)"
            )
        if self.heartbeat >= self.lease:
            raise SettingsError(
                f"a heartbeat every {self.heartbeat:g} s does not keep a lease of {self.lease:g} s:"
                " DAGORAMA_HEARTBEAT must be below DAGORAMA_LEASE"
            )
        if self.large_value_threshold > MESSAGE_LIMIT // 2:
            raise SettingsError(
                f"DAGORAMA_LARGE_VALUE_THRESHOLD must be at most {MESSAGE_LIMIT // 2}, half of a message"
            )
        if self.max_message < MESSAGE_LIMIT:
            raise SettingsError(f"DAGORAMA_MAX_MESSAGE must be at least {MESSAGE_LIMIT}, which is what clients send")

    @property
    def address(self) -> str:
        """The address to listen on."""
        return f"{self.host}:{self.port}"

    @property
    def lacks(self) -> str:
        """Return what is missing for serving other machines, if this broker does; else an empty text."""
        needed = () if is_loopback(self.host) else (("tokens", self.tokens), ("TLS", self.tls_cert))
        return " and ".join(what for what, there in needed if not there)

    @classmethod
    def from_env(cls, **options: Any) -> Settings:
        """Return the settings from options by field name, else the environment, else the defaults.

        Raise SettingsError, with one sentence, if a value is wrong.
        """
        found = read_settings(cls, options)
        return cls(**{**found, "store": found.get("store") or default_store()})


def _one_host(text: str) -> str:
    """Return a host; of several, as clients may have them, one must be chosen."""
    if "," in text:
        raise ValueError(
            "one host, because this command asks one broker: name it with --host, or use `dagorama healthcheck`, which"
            " finds the broker that leads"
        )
    return host_name(text)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a client reaches a broker."""

    host: str = setting("127.0.0.1", "DAGORAMA_HOST", _one_host, "Host of the broker")
    port: int = setting(DEFAULT_PORT, "DAGORAMA_PORT", port_number, "Port of the broker")
    tls_ca: str = setting(
        "", "DAGORAMA_TLS_CA", plain_text, "Use TLS, and accept certificates that these authorities have signed"
    )
    tls_cert: str = setting("", "DAGORAMA_TLS_CERT", plain_text, "Certificate to present, if the broker requires one")
    tls_key: str = setting("", "DAGORAMA_TLS_KEY", plain_text, "Private key of that certificate")
    tls_name: str = setting(
        "", "DAGORAMA_TLS_NAME", plain_text, "Name in the broker's certificate, if it differs from its host"
    )

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key) or ((self.tls_cert or self.tls_name) and not self.tls_ca):
            raise SettingsError(
                "DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY must be set together, and only with DAGORAMA_TLS_CA"
            )

    @classmethod
    def from_env(cls, **options: Any) -> Endpoint:
        """Return these settings, from options by field name or the environment. Raise SettingsError if one is wrong."""
        return cls(**read_settings(cls, options))


def described_settings() -> list[tuple[str, object, str]]:
    """Return the variable, the value and the origin of each setting of a broker that is started here.

    `dagorama config show` calls this through an entry point. Raise SettingsError if a value is wrong.
    """
    return described(Settings, Settings.from_env())


def default_store() -> str:
    """Return the URL of a SQLite file in the user's state folder. Raise SettingsError if there is no home folder."""
    from platformdirs import user_state_path

    try:
        folder = user_state_path("dagorama")
    except RuntimeError:  # of pathlib's expanduser()
        folder = Path()
    # os.path.expanduser() leaves a "~" as it is if the home folder is unknown.
    if not folder.is_absolute():
        raise SettingsError(
            "no store is set, and this user has no home folder for one: set DAGORAMA_STORE (--store) to"
            " sqlite:///PATH, or HOME to a folder"
        )
    return f"sqlite:///{folder / 'broker.sqlite3'}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach this address; of all names only localhost is trusted."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
