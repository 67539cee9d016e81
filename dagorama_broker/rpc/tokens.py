"""The file of tokens, which lists by digest who may call. `dagorama tokens new` writes its records.

A record is a TOML table [[token]] with `name`, `role` and `sha256`, and optionally `expires`. A worker's may have
`queues` and `tolerations`, to which the worker is restricted (an empty list: none). A reader's may have `logs = true`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any

from dagorama.api.contract import Role
from dagorama_broker.errors import SettingsError
from dagorama_broker.rpc.private_files import WRITERS, check_trust, is_open_to, open_file

_FIELDS = {"name", "role", "sha256", "queues", "tolerations", "expires", "logs"}


@dataclass(frozen=True, slots=True)
class Token:
    """A record of the file: everything but the token itself."""

    name: str
    role: Role
    digest: bytes  #: SHA-256
    queues: frozenset[str] | None = None  #: queues that a worker may include; None: any
    tolerations: frozenset[str] | None = None  #: tolerations that a worker may have; None: any
    expires: float | None = None  #: seconds since 1970
    logs: bool = False  #: a reader may read what nodes print and log, and stacks


def matching(tokens: Iterable[Token], text: bytes) -> Token | None:
    """Return the record of a token. Always compare all digests, each in constant time."""
    digest, found = sha256(text).digest(), None
    for token in tokens:
        if compare_digest(token.digest, digest):
            found = token
    return found


def read_tokens(path: Path) -> list[Token]:
    """Read the file. Raise SettingsError, with the file and the record, if it cannot be used."""
    try:
        with open_file(path) as file:
            check_trust(file.fileno(), path)
            if is_open_to(WRITERS, file.fileno()):
                raise SettingsError(
                    f"{path} lists who may call, and users other than its owner can write to it: chmod go-w {path}"
                )
            records = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"the tokens in {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    tables = records.pop("token", [])
    if records or not isinstance(tables, list):
        raise SettingsError(f"{path} must contain only [[token]] tables, as written by `dagorama tokens new`")
    tokens = [_token(table, f"token {number} of {path}") for number, table in enumerate(tables, 1)]
    for what in ("name", "digest"):
        if len({getattr(token, what) for token in tokens}) < len(tokens):
            raise SettingsError(f"{path} has two tokens with the same {what.replace('digest', 'sha256')}")
    return tokens


def _token(table: Any, where: str) -> Token:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is not a table: write [[token]], with two brackets")
    if unknown := table.keys() - _FIELDS:
        raise SettingsError(f"{where} has unknown fields: {', '.join(sorted(unknown))}")
    name, role, digest = (str(table.get(field, "")) for field in ("name", "role", "sha256"))
    if not name or role not in list(Role):
        raise SettingsError(f"{where} must have a name, and one of these roles: {', '.join(Role)}")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise SettingsError(f"{where} ({name}) must have the SHA-256 of the token, 64 hexadecimal digits")
    queues, tolerations = (_names(table, field, where) for field in ("queues", "tolerations"))
    if role != Role.WORKER and (queues is not None or tolerations is not None):
        raise SettingsError(f"{where} ({name}) has the role {role}: only a worker may have queues or tolerations")
    if queues is not None and not queues:
        raise SettingsError(f"{where} ({name}) allows no queue: remove `queues`, or list some")
    logs = table.get("logs", False)
    if not isinstance(logs, bool) or (logs and role not in (Role.READER, Role.SIGNALLER)):
        raise SettingsError(f"{where} ({name}): `logs` is true or false, and only a reader or signaller needs it")
    return Token(name, Role(role), bytes.fromhex(digest), queues, tolerations, _expires(table, where), logs)


def _names(table: dict[str, Any], field: str, where: str) -> frozenset[str] | None:
    names = table.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f"{where}: `{field}` must be a list of names")
    return frozenset(names)


def _expires(table: dict[str, Any], where: str) -> float | None:
    expires = table.get("expires")
    if expires is None:
        return None
    if not isinstance(expires, datetime) or expires.tzinfo is None:
        raise SettingsError(f"{where}: `expires` must be a date and time with a time zone, like 2030-01-31T00:00:00Z")
    return expires.timestamp()
