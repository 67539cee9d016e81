"""The settings of client and worker from environment variables. No other module of `dagorama` reads them."""

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib.util import find_spec
from math import inf
from os import environ
from re import fullmatch
from sys import float_info

from dagorama.dev_address import HOST as DEV_HOST
from dagorama.dev_address import dev_port
from dagorama.errors import SettingsError
from dagorama.settings.hosts import checked_host, checked_hosts, split_hosts

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HIGHEST_PORT = 65535
_WARN_AFTER = 5.0
_BROKER_WAIT = 20.0
LONGEST_PORT = 20  #: characters; int() raises another error for thousands of them
_ACCESS = ("auth_token", "auth_token_file", "tls_ca", "tls_cert", "tls_key", "tls_name")


@dataclass(frozen=True, slots=True)
class Settings:
    """The address of the broker and its access, the log level, and the grace period of a worker.

    A variable that is unset, empty or blank means its default; blanks around a value are ignored. If neither host, port
    nor authorities are set, the broker is the one that `dagorama dev` runs for the current folder, if it runs.
    """

    host: str = "localhost"  #: DAGORAMA_HOST: one host, or several with commas between them, see `hosts`
    port: int = 50051  #: DAGORAMA_PORT
    log_level: str = "WARNING"  #: DAGORAMA_LOG_LEVEL
    grace: float = 25.0  #: DAGORAMA_GRACE: seconds that running nodes get when their worker is told to stop
    auth_token: str = field(default="", repr=False)  #: DAGORAMA_AUTH_TOKEN: the token for the broker
    auth_token_file: str = ""  #: DAGORAMA_AUTH_TOKEN_FILE: a file with the token
    tls_ca: str = ""  #: DAGORAMA_TLS_CA: a file with the authorities of the broker's certificate
    tls_cert: str = ""  #: DAGORAMA_TLS_CERT: a file with a client certificate, if the broker requires one
    tls_key: str = ""  #: DAGORAMA_TLS_KEY: a file with the key of the client certificate
    tls_name: str = ""  #: DAGORAMA_TLS_NAME: the name in the broker's certificate, if not DAGORAMA_HOST

    @classmethod
    def from_env(cls, host: str | None = None, port: int | None = None) -> "Settings":
        """Return the settings of options and variables; raise SettingsError, which names the invalid one."""
        # Every call to the broker calls this; the variables are interpreted once.
        if host is None and port is None:
            return _read(*map(environ.get, _VARIABLES))
        given = {"DAGORAMA_HOST": host and checked_hosts(host, "--host"), "DAGORAMA_PORT": port and str(port)}
        return _read(*(given.get(variable) or environ.get(variable) for variable in _VARIABLES))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts at which the broker may be, in the order in which they are tried."""
        return split_hosts(self.host)

    @property
    def endpoint(self) -> tuple[object, ...]:
        """All settings that a channel depends on."""
        return self.host, self.port, *(getattr(self, name) for name in _ACCESS)


_DEFAULTS = Settings()
_VARIABLES = tuple(f"DAGORAMA_{each.name.upper()}" for each in fields(Settings))


@lru_cache(maxsize=8)
def _read(host: str | None, port: str | None, level: str | None, grace: str | None, *access: str | None) -> Settings:
    """Return the settings for these texts of the variables."""
    where = checked_hosts(host, "DAGORAMA_HOST") if _stripped(host) else _DEFAULTS.host
    found = Settings(where, _port(port), _log_level(level), _grace(grace), **_access(*access))
    if len(found.hosts) > 1 and found.tls_ca and not found.tls_name:
        raise SettingsError(
            f"TLS is on, and the broker may be at several hosts ({where}): set DAGORAMA_TLS_NAME to the name that all"
            " their certificates have"
        )
    dev = _dev_port(host, port, found.tls_ca)
    return found if dev is None else replace(found, host=DEV_HOST, port=dev)


def _dev_port(host: object, port: object, tls_ca: str) -> int | None:
    """Return the port of the broker of `dagorama dev`; None if it does not run here, or another broker is named."""
    return None if any(str(text or "").strip() for text in (host, port, tls_ca)) else dev_port()


_FLAGS = dict.fromkeys(("", "1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def signing_keys() -> tuple[str, str]:
    """Return DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE; raise SettingsError if both are set."""
    # A blank does not mean the default here: it is an error, because a secret may be missing in a template.
    keys, file = environ.get("DAGORAMA_SIGNING_KEYS", ""), _stripped(environ.get("DAGORAMA_SIGNING_KEYS_FILE"))
    if keys and file:
        raise SettingsError("DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE are both set: unset one of them")
    return keys, file


def _access(*texts: str | None) -> dict[str, str]:
    found = {name: _stripped(text) for name, text in zip(_ACCESS, texts, strict=True)}
    if found["tls_name"]:
        found["tls_name"] = checked_host(found["tls_name"], "DAGORAMA_TLS_NAME")
    if found["auth_token"] and found["auth_token_file"]:
        raise SettingsError("DAGORAMA_AUTH_TOKEN and DAGORAMA_AUTH_TOKEN_FILE are both set: unset one of them")
    if bool(found["tls_cert"]) != bool(found["tls_key"]):
        raise SettingsError("DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY go together: set both, or neither")
    if not found["tls_ca"] and (other := (found["tls_cert"] and "CERT") or (found["tls_name"] and "NAME")):
        raise SettingsError(
            f"DAGORAMA_TLS_{other} is set and DAGORAMA_TLS_CA is not: set it to the authorities of the broker's"
            " certificate, which also turns on TLS"
        )
    return found


def names_a_broker() -> str:
    """Return a variable that is set and because of which clients look for no broker of `dagorama dev`, or nothing."""
    return next((name for name in (*_VARIABLES[:2], "DAGORAMA_TLS_CA") if _stripped(environ.get(name))), "")


def log_level() -> str:
    """Return DAGORAMA_LOG_LEVEL in upper case, one of LOG_LEVELS; raise SettingsError."""
    return _log_level(environ.get("DAGORAMA_LOG_LEVEL"))


def node_log_level() -> str:
    """Return the lowest level of logs of nodes that a worker shows: DAGORAMA_LOG_LEVEL, or INFO."""
    return _log_level(environ.get("DAGORAMA_LOG_LEVEL") or "INFO")


def captures_logs() -> bool:
    """Return DAGORAMA_LOGS: whether a worker sends what its nodes print and log to the broker; raise SettingsError."""
    return _flag("DAGORAMA_LOGS")


def captured_log_level() -> str:
    """Return the lowest level of records to send: DAGORAMA_LOGS_LEVEL, or `node_log_level`; raise SettingsError."""
    text = environ.get("DAGORAMA_LOGS_LEVEL")
    return _log_level(text, "DAGORAMA_LOGS_LEVEL") if _stripped(text) else node_log_level()


def _log_level(text: str | None, name: str = "DAGORAMA_LOG_LEVEL") -> str:
    level = (_stripped(text) or _DEFAULTS.log_level).upper()
    if level not in LOG_LEVELS:
        raise SettingsError(f"{name} is {text!r}: it must be one of {', '.join(LOG_LEVELS)}")
    return level


def shared_files() -> bool:
    """Return DAGORAMA_SHARED_FILES: whether to use large values as files of a local broker; raise SettingsError."""
    return _flag("DAGORAMA_SHARED_FILES")


def local_socket() -> bool:
    """Return DAGORAMA_LOCAL_SOCKET: whether to use the Unix socket of a local broker; raise SettingsError."""
    return _flag("DAGORAMA_LOCAL_SOCKET")


def _flag(name: str) -> bool:
    text = environ.get(name, "").strip().lower()
    if text not in _FLAGS:
        raise SettingsError(f"{name} is {text!r}: it must be 1 or 0")
    return _FLAGS[text]


def no_color() -> bool:
    """Return whether NO_COLOR is set, which asks for output without colors (no-color.org)."""
    return bool(environ.get("NO_COLOR"))


def traces() -> bool:
    """Return DAGORAMA_TRACES: whether to make spans; raise SettingsError, also if OpenTelemetry is not installed."""
    return _traces(environ.get("DAGORAMA_TRACES", ""))


@lru_cache(maxsize=8)
def _traces(text: str) -> bool:
    flag = text.strip().lower() or "0"
    if flag not in _FLAGS:
        raise SettingsError(f"DAGORAMA_TRACES is {text!r}: it must be 1 or 0")
    if _FLAGS[flag] and find_spec("opentelemetry") is None:
        raise SettingsError("DAGORAMA_TRACES is set and needs a package: pip install 'dagorama[otel]'")
    return _FLAGS[flag]


def warn_after() -> float:
    """Return DAGORAMA_WARN_AFTER: seconds after which a wait logs why it has not ended; raise SettingsError."""
    return _seconds("DAGORAMA_WARN_AFTER", environ.get("DAGORAMA_WARN_AFTER"), _WARN_AFTER, inf)


def broker_wait() -> float:
    """Return DAGORAMA_BROKER_WAIT: seconds that a known broker may be unavailable; raise SettingsError."""
    return _seconds("DAGORAMA_BROKER_WAIT", environ.get("DAGORAMA_BROKER_WAIT"), _BROKER_WAIT, inf)


def look_at(host: str | None, port: int | None) -> None:
    """Set the address of the broker for this process and its children; None leaves a variable unchanged."""
    if host is not None:
        environ["DAGORAMA_HOST"] = checked_hosts(host, "--host")
    if port is not None:
        environ["DAGORAMA_PORT"] = str(port)


def _stripped(text: str | None) -> str:
    return (text or "").strip()


def _seconds(name: str, text: str | None, otherwise: float, most: float) -> float:
    try:
        seconds = float(_stripped(text) or otherwise)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:
        raise SettingsError(f"{name} is {text!r}: it must be a number of seconds from 0 up")
    return seconds


def _grace(text: str | None) -> float:
    return _seconds("DAGORAMA_GRACE", text, _DEFAULTS.grace, float_info.max)


def _port(text: str | None) -> int:
    # Kubernetes sets it to tcp://IP:PORT in pods if there is a Service with the name dagorama.
    service = fullmatch(r"(tcp|udp|sctp)://\S*?(?::(\d+))?", _stripped(text))
    if service is not None:
        text = service[2] if service[1] == "tcp" else None
    stripped = _stripped(text) or str(_DEFAULTS.port)
    # isdecimal() also accepts other scripts' digits; int() reads those as well.
    port = int(stripped) if stripped.isdecimal() and len(stripped) <= LONGEST_PORT else 0
    if not 0 < port <= HIGHEST_PORT:
        raise SettingsError(f"DAGORAMA_PORT is {text!r}: it must be a port number between 1 and {HIGHEST_PORT}")
    return port


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker."""

    include_queues: tuple[str, ...] = ()  #: if empty, all queues
    exclude_queues: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    concurrency: int = 1  #: child processes
    imports: tuple[str, ...] = ()  #: modules that every child imports first
    only_imported: bool = False  #: run nothing but definitions of these modules
    exit_on_completion: bool = False  #: stop when the graph is drained
    idle: float | None = None  #: seconds without a node after which to stop; None: stay
    lifetime: float | None = None  #: seconds after which to finish what runs, and stop; None: stay
    lifeline: int | None = None  #: descriptor of a pipe or socket: to stop at once when its other end is closed
    name: str = ""  #: as people see it; empty: its host and process ID
    definitions: bytes = b""  #: a pickled Shipment of the launching program's, for the children
    captures_output: bool = False  #: also capture the output of C code and of programs
    grace: float | None = None  #: seconds that running nodes get when it is told to stop; None: Settings.grace
    health_port: int | None = None  #: port of /livez and /readyz over HTTP; 0: any free one, None: none
    metrics_port: int | None = None  #: port of /metrics over HTTP; 0: any free one, None: none
    health_host: str = "127.0.0.1"  #: address of the HTTP ports
