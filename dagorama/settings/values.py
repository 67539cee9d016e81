"""The settings of large values in an object store."""

from math import inf
from os import environ

from dagorama.errors import SettingsError

#: How values go to an object store and come from there: by URLs that the broker signs, or through the broker.
TRANSFERS = ("direct", "broker")
#: Seconds.
_PATIENCE = 600.0


def is_direct() -> bool:
    """Return whether this process uses the object store itself, as DAGORAMA_VALUES_TRANSFER says.

    The broker reads the same variable: if it is `broker` there, no client gets a URL. Raises SettingsError.
    """
    return values_transfer() == TRANSFERS[0]


def values_transfer() -> str:
    """Return DAGORAMA_VALUES_TRANSFER, one of TRANSFERS; raise SettingsError."""
    text = environ.get("DAGORAMA_VALUES_TRANSFER", "")
    found = text.strip().lower() or TRANSFERS[0]
    if found not in TRANSFERS:
        raise SettingsError(f"DAGORAMA_VALUES_TRANSFER is {text!r}: it must be one of {', '.join(TRANSFERS)}")
    return found


def values_patience() -> float:
    """Return DAGORAMA_VALUES_PATIENCE: seconds for which a worker tries an object store; raise SettingsError."""
    text = environ.get("DAGORAMA_VALUES_PATIENCE", "")
    try:
        seconds = float(text.strip() or _PATIENCE)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= inf:
        raise SettingsError(f"DAGORAMA_VALUES_PATIENCE is {text!r}: it must be a number of seconds from 0 up")
    return seconds
