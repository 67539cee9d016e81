"""Reads settings from options and from the environment; no other module of `dagorama_broker` does.

A setting is a field of a dataclass that `setting` has declared. An option takes precedence over its variable, an empty
variable counts as unset, and an error names the option or the variable that is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from ipaddress import ip_address
from os import environ
from pathlib import Path
from re import compile, fullmatch
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dagorama_broker.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("text", "json")
#: How clients send large values to an object store, and read them: by signed URLs, or through the broker.
TRANSFERS = ("direct", "broker")
DEFAULT_PORT = 50051
#: Seconds for which a database that does not answer is tried again, and after which a silent leader may be replaced.
STORE_PATIENCE, LEADER_LEASE = 60.0, 6.0
HIGHEST_PORT = 65535
DAY = 86_400  #: seconds
LONGEST_NUMBER = 18  #: digits
#: The largest number that gRPC accepts, with room for what is added to it; in milliseconds for times.
MOST = 2_000_000_000

_T = TypeVar("_T")
#: Parameters of a URL whose values are secrets.
_PASSWORDS = ("password", "sslpassword")
#: A user and a password. To libpq they end with the first @, and have no /; but a password may be written with both by
#: mistake, and must not be shown then. A number after the first : is a port.
_LOGIN = compile(r"[^/]*@|[^/@:\[]*:(?!\d+(?:[/?,]|$)|$)[^?]*@")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Setting(NamedTuple):
    """How a field is set from outside."""

    variable: str
    parse: Callable[[str], Any]  #: raises ValueError with what the value must be
    help: str


def setting(default: _T, variable: str, parse: Callable[[str], _T], help: str) -> _T:
    """Declare a field of a dataclass that `read_settings` reads."""
    return field(default=default, metadata={"setting": Setting(variable, parse, help)})


def setting_of(declared: Field[Any]) -> Setting:
    """Return how a field is set from outside."""
    found: Setting = declared.metadata["setting"]
    return found


def runtime_folder() -> Path | None:
    """Return XDG_RUNTIME_DIR, the folder of this user's sockets, if it is set to an absolute path."""
    folder = Path(environ.get("XDG_RUNTIME_DIR", ""))
    return folder if folder.is_absolute() else None


def read_settings(kind: type[DataclassInstance], options: Mapping[str, object]) -> dict[str, Any]:
    """Return what options and the environment say about the fields of `kind`; an option that is None is not given.

    Raise SettingsError, with one sentence, if a value is wrong.
    """
    if unknown := options.keys() - {declared.name for declared in fields(kind)}:
        raise TypeError(f"there are no settings {', '.join(sorted(unknown))}")
    found = {}
    for declared in fields(kind):
        option, (variable, parse, _) = options.get(declared.name), setting_of(declared)
        if isinstance(option, str):
            found[declared.name] = _parsed(option_name(declared.name), option, parse)
        elif option is not None:
            found[declared.name] = option
        elif text := environ.get(variable, "").strip():
            found[declared.name] = _parsed(variable, text, parse)
    return found


def described(kind: type[DataclassInstance], read: object) -> list[tuple[str, object, str]]:
    """Return the variable, the value (None: there is none) and the origin of each field of `read`, one of `kind`.

    The origin is "environment" or "default". Only a URL may hold a secret, a password, which is left out; other secrets
    are in files that settings name.
    """
    return [
        (
            variable,
            _plain(getattr(read, declared.name)),
            "environment" if environ.get(variable, "").strip() else "default",
        )
        for declared in fields(kind)
        for variable in [setting_of(declared).variable]
    ]


def _plain(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        return without_password(value)
    return "never" if value == math.inf else None if value == "" else value


class UrlParts(NamedTuple):
    """The parts of a URL as libpq divides it, which joined make the URL again, with "://" after the scheme."""

    scheme: str
    login: str  #: user and password, with the @ after them
    place: str  #: hosts, ports and path
    query: str  #: with the ? before it


def split_url(url: str) -> UrlParts:
    """Return the parts of a URL. A login that libpq would misread has the characters that must be escaped in it."""
    scheme, _, rest = url.partition("://")
    found = _LOGIN.match(rest)
    login = found[0] if found else ""
    place, mark, query = rest.removeprefix(login).partition("?")
    return UrlParts(scheme, login, place, mark + query)


def without_password(url: str) -> str:
    """Return a URL for people: without its password, which may stand before the host or in the query."""
    if "://" not in url:
        return url
    from urllib.parse import parse_qsl, urlencode  # a start without a URL needs none of it

    scheme, login, place, query = split_url(url)
    user, has_password, _ = login.partition(":")
    given = parse_qsl(query[1:])
    if shown := [(name, value) for name, value in given if name not in _PASSWORDS]:
        query = query if shown == given else f"?{urlencode(shown)}"
    elif given:
        query = ""
    return f"{scheme}://{f'{user}@' if has_password else login}{place}{query}"


#: Variables with the address of an object store, as obstore reads them.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")


def has_plain_endpoint() -> bool:
    """Return whether the address of an object store is set to one without TLS."""
    set_by = (environ.get(name, "") for name in _ENDPOINTS)
    return any(address.lower().startswith("http://") for address in set_by) or "AZURE_STORAGE_USE_EMULATOR" in environ


def option_name(name: str) -> str:
    """Return the command line option for a field."""
    return f"--{name.replace('_', '-')}"


def _parsed(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}: it must be {error}") from None


# --- parsers: each raises ValueError with what the value must be --------------------------------------------


def plain_text(text: str) -> str:
    return text


def host_name(text: str) -> str:
    """Return a host name or an address, an IPv6 one without its brackets."""
    text = text.strip()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _is_ipv6(bare) or fullmatch(r"[\w.-]+", text):
        return bare
    raise ValueError("the name or the address of a host, without a scheme or a port")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def port_number(text: str) -> int:
    """Return a port; the default one for tcp://IP:PORT, which Kubernetes sets in pods next to a Service `dagorama`."""
    if fullmatch(r"(tcp|udp|sctp)://\S*", text):
        return DEFAULT_PORT
    # isdecimal() also accepts other scripts' digits; int() reads those as well, and refuses thousands of digits.
    if not text.isdecimal() or len(text) > LONGEST_NUMBER or int(text) > HIGHEST_PORT:
        raise ValueError(f"a port number, 0 to {HIGHEST_PORT}")
    return int(text)


def level_name(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def format_name(text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise ValueError(f"one of {', '.join(LOG_FORMATS)}")
    return text.lower()


def transfer_name(text: str) -> str:
    if text.lower() not in TRANSFERS:
        raise ValueError(f"one of {', '.join(TRANSFERS)}")
    return text.lower()


def flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("1 or 0")
    return _FLAGS[text.lower()]


def seconds(text: str) -> float:
    found = seconds_or_zero(text)
    if not found:
        raise ValueError("a number of seconds above 0")
    return found


def seconds_or_zero(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise ValueError("a number of seconds")
    return found


def seconds_or_never(text: str) -> float:
    if text.lower() == "never":
        return math.inf
    try:
        return seconds_or_zero(text)
    except ValueError:
        raise ValueError("a number of seconds, or never") from None


def lease_seconds(text: str) -> float:
    """Return a lease: it covers some round trips to a database, and a wait for it is short enough for the system."""
    found = seconds(text)
    if not 1 <= found <= DAY:
        raise ValueError(f"a number of seconds from 1 to {DAY}")
    return found


def grpc_seconds(text: str) -> float:
    found = seconds(text)
    if not 0.001 <= found <= MOST // 1000:
        raise ValueError(f"a number of seconds from 0.001 to {MOST // 1000}")
    return found


def positive_number(text: str) -> int:
    if not text.isdecimal() or len(text) > LONGEST_NUMBER or not int(text):
        raise ValueError("a whole number above 0")
    return int(text)


def grpc_number(text: str) -> int:
    found = positive_number(text)
    if found > MOST:
        raise ValueError(f"a whole number from 1 to {MOST}")
    return found
