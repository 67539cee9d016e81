"""The file of tokens: who may call, as digests. `dagorama tokens new` writes its records.

A record is a TOML table [[token]] with `name`, `role` and `sha256`; a worker's may have `queues` and `tolerations`,
which it must keep to (an empty list: none), and any may have `expires`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any

from dagorama_broker.errors import SettingsError
from dagorama_broker.rpc.private_files import WRITERS, check_trust, is_open_to, open_file


class Role(StrEnum):
    SPAWNER = "spawner"
    WORKER = "worker"
    READER = "reader"
    ADMIN = "admin"


_FIELDS = {"name", "role", "sha256", "queues", "tolerations", "expires"}


@dataclass(frozen=True, slots=True)
class Token:
    """What the broker knows of a token: everything but the token."""

    name: str
    role: Role
    digest: bytes  #: SHA-256
    queues: frozenset[str] | None = None  #: that a worker may include; None: any
    tolerations: frozenset[str] | None = None  #: that a worker may have; None: any
    expires: float | None = None  #: seconds since 1970


def matching(tokens: Iterable[Token], text: bytes) -> Token | None:
    """The record of a token. All are compared, each in constant time, whichever it is."""
    digest, found = sha256(text).digest(), None
    for token in tokens:
        if compare_digest(token.digest, digest):
            found = token
    return found


def read_tokens(path: Path) -> list[Token]:
    """Raises SettingsError, which names the file and the record, where it cannot be used."""
    try:
        with open_file(path) as file:
            check_trust(file.fileno(), path)
            if is_open_to(WRITERS, file.fileno()):
                raise SettingsError(
                    f"{path} says who may call, and its group or everybody on this machine may write it:"
                    f" chmod go-w {path}"
                )
            records = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"the tokens in {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    tables = records.pop("token", [])
    if records or not isinstance(tables, list):
        raise SettingsError(f"{path} has something else than [[token]] tables, as `dagorama tokens new` writes them")
    tokens = [_token(table, f"token {number} of {path}") for number, table in enumerate(tables, 1)]
    for what in ("name", "digest"):
        if len({getattr(token, what) for token in tokens}) < len(tokens):
            raise SettingsError(f"{path} has two tokens with the same {what.replace('digest', 'sha256')}")
    return tokens


def _token(table: Any, where: str) -> Token:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is not a table: write [[token]], with two brackets")
    if unknown := table.keys() - _FIELDS:
        raise SettingsError(f"{where} has a field that no token has: {', '.join(sorted(unknown))}")
    name, role, digest = (str(table.get(field, "")) for field in ("name", "role", "sha256"))
    if not name or role not in list(Role):
        raise SettingsError(f"{where} has to have a name, and as its role one of {', '.join(Role)}")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise SettingsError(f"{where} ({name}) has to have the SHA-256 of the token, 64 digits from 0 to f")
    queues, tolerations = (_names(table, field, where) for field in ("queues", "tolerations"))
    if role != Role.WORKER and (queues is not None or tolerations is not None):
        raise SettingsError(f"{where} ({name}) is a {role}'s: only a worker's has queues or tolerations")
    if queues is not None and not queues:
        raise SettingsError(f"{where} ({name}) is for no queue at all: leave `queues` out, or name some")
    return Token(name, Role(role), bytes.fromhex(digest), queues, tolerations, _expires(table, where))


def _names(table: dict[str, Any], field: str, where: str) -> frozenset[str] | None:
    names = table.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f"{where}: `{field}` has to be a list of names")
    return frozenset(names)


def _expires(table: dict[str, Any], where: str) -> float | None:
    expires = table.get("expires")
    if expires is None:
        return None
    if not isinstance(expires, datetime) or expires.tzinfo is None:
        raise SettingsError(f"{where}: `expires` has to be a date and time with its zone, 2030-01-31T00:00:00Z")
    return expires.timestamp()
