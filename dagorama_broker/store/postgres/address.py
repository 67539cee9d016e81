"""The URL of a PostgreSQL store: libpq's own, with parameters of this store."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from dagorama_broker.environment import split_url, without_password
from dagorama_broker.errors import SettingsError

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_SCHEMA = "dagorama"
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
#: Characters in a login that libpq misreads; its error would then show parts of the password.
_MISREAD = re.compile(r"/|@.|%(?![0-9A-Fa-f]{2})|%00")


class Address(NamedTuple):
    """The server and the schema of a store, and what to accept of the server."""

    conninfo: str  #: libpq's URL, which may hold a password
    schema: str
    is_unsafe: bool  #: accept a server that may lose commits when it crashes
    shown: str  #: for people, without a password


def parse_address(url: str) -> Address:
    """Return the parts of `postgresql://...[?schema=NAME&unsafe=1&...]`. Raise SettingsError, without the password."""
    scheme, login, place, query = split_url(url)
    shown = without_password(url)
    if _MISREAD.search(login):
        raise SettingsError(f"store {shown}: in a user and a password, write @ as %40, / as %2F and % as %25")
    parameters = parse_qsl(query[1:].replace("+", "%2B"), keep_blank_values=True)  # to libpq a + is no space
    own = {name: value for name, value in parameters if name in ("schema", "unsafe")}
    schema = own.get("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise SettingsError(
            f"store {shown}: schema={schema!r} must be a name of lower-case letters, digits and _ with at most 63"
            " characters that does not begin with a digit or with pg_"
        )
    if own.get("unsafe", "0") not in ("0", "1"):
        raise SettingsError(f"store {shown}: unsafe={own['unsafe']!r} must be 0 or 1")
    rest = urlencode([(name, value) for name, value in parameters if name not in own], quote_via=quote)
    conninfo = f"{scheme}://{login}{place}{'?' if rest else ''}{rest}"
    return Address(conninfo, schema, own.get("unsafe") == "1", shown)
