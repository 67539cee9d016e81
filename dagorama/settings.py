"""What the environment says to the client and the worker: the only place in `dagorama` that reads it."""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import inf
from os import environ
from sys import float_info

from dagorama.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HIGHEST_PORT = 65535
_WARN_AFTER = 5.0
_ACCESS = ("auth_token", "auth_token_file", "tls_ca", "tls_cert", "tls_key", "tls_name")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, how to reach it, how much to log, how a worker leaves.

    An unset or empty variable means its default.
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
    def from_env(cls) -> "Settings":
        """Reads the variables beside the fields; raises SettingsError naming the bad one."""
        # Every call to the broker asks; what the variables mean is found out once.
        return _read(*map(environ.get, _VARIABLES))

    @property
    def way(self) -> tuple[object, ...]:
        """All that a channel depends on."""
        return self.host, self.port, *(getattr(self, name) for name in _ACCESS)


_DEFAULTS = Settings()
_VARIABLES = tuple(f"DAGORAMA_{each.name.upper()}" for each in fields(Settings))


@lru_cache(maxsize=8)
def _read(host: str | None, port: str | None, level: str | None, grace: str | None, *access: str | None) -> Settings:
    """The settings while the variables have these texts."""
    return Settings(host or _DEFAULTS.host, _port(port), _log_level(level), _grace(grace), **_access(*access))


_FLAGS = dict.fromkeys(("", "1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def signing_keys() -> tuple[str, str]:
    """DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE; raises SettingsError where both are set."""
    keys, file = environ.get("DAGORAMA_SIGNING_KEYS", ""), environ.get("DAGORAMA_SIGNING_KEYS_FILE", "")
    if keys and file:
        raise SettingsError("DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE are both set: unset one of them")
    return keys, file


def _access(*texts: str | None) -> dict[str, str]:
    found = {name: text or "" for name, text in zip(_ACCESS, texts, strict=True)}
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
    text = text or _DEFAULTS.log_level
    level = text.strip().upper()
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
    text = environ.get("DAGORAMA_WARN_AFTER")
    return _WARN_AFTER if not text else _seconds("DAGORAMA_WARN_AFTER", text, inf)


def _seconds(name: str, text: str, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:
        raise SettingsError(f"{name} is {text!r}: it has to be a number of seconds from 0 up")
    return seconds


def _grace(text: str | None) -> float:
    return _seconds("DAGORAMA_GRACE", text or str(_DEFAULTS.grace), float_info.max)


def _port(text: str | None) -> int:
    text = text or str(_DEFAULTS.port)
    # isdecimal() also accepts other scripts' digits; int() reads those as well.
    port = int(text) if text.strip().isdecimal() else 0
    if not 0 < port <= HIGHEST_PORT:
        raise SettingsError(f"DAGORAMA_PORT is {text!r}: it has to be a port number between 1 and {HIGHEST_PORT}")
    return port
