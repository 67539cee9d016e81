"""What the environment says to the client and the worker: the only place in `dagorama` that reads it."""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from ipaddress import ip_address
from math import inf
from os import environ
from re import fullmatch
from sys import float_info

from dagorama.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HIGHEST_PORT = 65535
_WARN_AFTER = 5.0
_BROKER_WAIT = 20.0
LONGEST_PORT = 20  #: characters; int() refuses thousands of them in its own words
_ACCESS = ("auth_token", "auth_token_file", "tls_ca", "tls_cert", "tls_key", "tls_name")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, how to reach it, how much to log, how a worker leaves.

    A variable that is unset, empty or blank means its default; blanks around a value do not count.
    """

    host: str = "localhost"  #: DAGORAMA_HOST
    port: int = 50051  #: DAGORAMA_PORT
    log_level: str = "WARNING"  #: DAGORAMA_LOG_LEVEL
    grace: float = 25.0  #: DAGORAMA_GRACE: seconds that running nodes get when their worker is told to leave
    auth_token: str = field(default="", repr=False)  #: DAGORAMA_AUTH_TOKEN: what to present to the broker
    auth_token_file: str = ""  #: DAGORAMA_AUTH_TOKEN_FILE: a file that holds it instead
    tls_ca: str = ""  #: DAGORAMA_TLS_CA: a file of the authorities that the broker's certificate may come from
    tls_cert: str = ""  #: DAGORAMA_TLS_CERT: a file with a certificate to present, where the broker wants one
    tls_key: str = ""  #: DAGORAMA_TLS_KEY: a file with its key
    tls_name: str = ""  #: DAGORAMA_TLS_NAME: the name in the broker's certificate, where it is not DAGORAMA_HOST

    @classmethod
    def from_env(cls, host: str | None = None, port: int | None = None) -> "Settings":
        """Reads the variables beside the fields, after the options given; raises SettingsError naming the bad one."""
        # Every call to the broker asks; what the variables mean is found out once.
        if host is None and port is None:
            return _read(*map(environ.get, _VARIABLES))
        given = {"DAGORAMA_HOST": host and checked_host(host, "--host"), "DAGORAMA_PORT": port and str(port)}
        return _read(*(given.get(variable) or environ.get(variable) for variable in _VARIABLES))

    @property
    def way(self) -> tuple[object, ...]:
        """All that a channel depends on."""
        return self.host, self.port, *(getattr(self, name) for name in _ACCESS)


_DEFAULTS = Settings()
_VARIABLES = tuple(f"DAGORAMA_{each.name.upper()}" for each in fields(Settings))


@lru_cache(maxsize=8)
def _read(host: str | None, port: str | None, level: str | None, grace: str | None, *access: str | None) -> Settings:
    """The settings while the variables have these texts."""
    where = checked_host(host, "DAGORAMA_HOST") if _stripped(host) else _DEFAULTS.host
    return Settings(where, _port(port), _log_level(level), _grace(grace), **_access(*access))


_FLAGS = dict.fromkeys(("", "1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def signing_keys() -> tuple[str, str]:
    """DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE; raises SettingsError where both are set."""
    # Blank keys are no default: a secret that was not filled in is an error of its own.
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
            f"DAGORAMA_TLS_{other} is set and DAGORAMA_TLS_CA is not: it says which authorities the broker's"
            " certificate may come from, and turns TLS on"
        )
    return found


def log_level() -> str:
    """DAGORAMA_LOG_LEVEL, one of LOG_LEVELS, in either case; raises SettingsError for anything else."""
    return _log_level(environ.get("DAGORAMA_LOG_LEVEL"))


def node_log_level() -> str:
    """The level from which on a worker shows what nodes log: DAGORAMA_LOG_LEVEL, or INFO."""
    return _log_level(environ.get("DAGORAMA_LOG_LEVEL") or "INFO")


def _log_level(text: str | None) -> str:
    level = (_stripped(text) or _DEFAULTS.log_level).upper()
    if level not in LOG_LEVELS:
        raise SettingsError(f"DAGORAMA_LOG_LEVEL is {text!r}: it has to be one of {', '.join(LOG_LEVELS)}")
    return level


def shared_files() -> bool:
    """DAGORAMA_SHARED_FILES: whether large values may be files of a broker on this machine; raises SettingsError."""
    text = environ.get("DAGORAMA_SHARED_FILES", "").strip().lower()
    if text not in _FLAGS:
        raise SettingsError(f"DAGORAMA_SHARED_FILES is {text!r}: it has to be 1 or 0")
    return _FLAGS[text]


def warn_after() -> float:
    """DAGORAMA_WARN_AFTER: seconds after which a wait that cannot end says why; raises SettingsError."""
    return _seconds("DAGORAMA_WARN_AFTER", environ.get("DAGORAMA_WARN_AFTER"), _WARN_AFTER, inf)


def broker_wait() -> float:
    """DAGORAMA_BROKER_WAIT: seconds that a broker may be gone after it has answered; raises SettingsError."""
    return _seconds("DAGORAMA_BROKER_WAIT", environ.get("DAGORAMA_BROKER_WAIT"), _BROKER_WAIT, inf)


def look_at(host: str | None, port: int | None) -> None:
    """Have this process, and those that it starts, look for the broker there; None leaves what the variables say."""
    if host is not None:
        environ["DAGORAMA_HOST"] = checked_host(host, "--host")
    if port is not None:
        environ["DAGORAMA_PORT"] = str(port)


def checked_host(text: str | None, source: str) -> str:
    """A host name or an address, an IPv6 one without its brackets. Raises SettingsError, which names `source`."""
    host = _stripped(text)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6(bare) or fullmatch(r"[\w.-]+", host):
        return bare
    name, _, port = host.rpartition(":")
    if "://" in host:
        remedy = ", without a scheme such as http://"
    elif port.isdecimal() and name:
        remedy = f", and the port has its own setting: {name.strip('[]')!r} here, and {port} for the port"
    else:
        remedy = ""
    raise SettingsError(f"{source} is {text!r}: it has to be the name or the address of a host{remedy}")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _stripped(text: str | None) -> str:
    return (text or "").strip()


def _seconds(name: str, text: str | None, otherwise: float, most: float) -> float:
    try:
        seconds = float(_stripped(text) or otherwise)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:
        raise SettingsError(f"{name} is {text!r}: it has to be a number of seconds from 0 up")
    return seconds


def _grace(text: str | None) -> float:
    return _seconds("DAGORAMA_GRACE", text, _DEFAULTS.grace, float_info.max)


def _port(text: str | None) -> int:
    # Kubernetes sets it to tcp://IP:PORT in the pods beside a Service that is called dagorama.
    service = fullmatch(r"(tcp|udp|sctp)://\S*?(?::(\d+))?", _stripped(text))
    if service is not None:
        text = service[2] if service[1] == "tcp" else None
    stripped = _stripped(text) or str(_DEFAULTS.port)
    # isdecimal() also accepts other scripts' digits; int() reads those as well.
    port = int(stripped) if stripped.isdecimal() and len(stripped) <= LONGEST_PORT else 0
    if not 0 < port <= HIGHEST_PORT:
        raise SettingsError(f"DAGORAMA_PORT is {text!r}: it has to be a port number between 1 and {HIGHEST_PORT}")
    return port


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is started with."""

    include_queues: tuple[str, ...] = ()  #: none: all
    exclude_queues: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    concurrency: int = 1  #: child processes
    imports: tuple[str, ...] = ()  #: modules that every child imports first
    only_imported: bool = False  #: run nothing but definitions of these modules
    exit_on_completion: bool = False  #: leave when the graph is drained
    definitions: bytes = b""  #: a pickled Shipment of the launching program's, for the children
    grace: float | None = None  #: seconds that running nodes get when it is told to leave; None: as Settings say
