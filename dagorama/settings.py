"""What the environment says to the client and the worker: the only place in `dagorama` that reads it."""

from dataclasses import dataclass
from os import environ

from dagorama.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is and how much to log; an unset or empty variable means its default."""

    host: str = "localhost"
    port: int = 50051
    log_level: str = "WARNING"

    @classmethod
    def from_env(cls) -> "Settings":
        """Reads DAGORAMA_HOST, DAGORAMA_PORT and DAGORAMA_LOG_LEVEL; raises SettingsError naming the bad one."""
        return cls(host=environ.get("DAGORAMA_HOST") or _DEFAULTS.host, port=_port(), log_level=log_level())


_DEFAULTS = Settings()
_FLAGS = dict.fromkeys(("", "1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def signing_keys() -> tuple[str, str]:
    """DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE; raises SettingsError where both are set."""
    keys, file = environ.get("DAGORAMA_SIGNING_KEYS", ""), environ.get("DAGORAMA_SIGNING_KEYS_FILE", "")
    if keys and file:
        raise SettingsError("DAGORAMA_SIGNING_KEYS and DAGORAMA_SIGNING_KEYS_FILE are both set: unset one of them")
    return keys, file


def log_level() -> str:
    """DAGORAMA_LOG_LEVEL, one of LOG_LEVELS, in either case; raises SettingsError for anything else."""
    text = environ.get("DAGORAMA_LOG_LEVEL") or _DEFAULTS.log_level
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


def _port() -> int:
    text = environ.get("DAGORAMA_PORT") or str(_DEFAULTS.port)
    # isdecimal() also accepts other scripts' digits; int() reads those as well.
    port = int(text) if text.strip().isdecimal() else 0
    if not 0 < port <= HIGHEST_PORT:
        raise SettingsError(f"DAGORAMA_PORT is {text!r}: it has to be a port number between 1 and {HIGHEST_PORT}")
    return port
