"""The commands `dagorama keys` and `dagorama tokens`: signing keys of values, and access tokens of a broker's callers.

The rule: a token is printed once. Files contain only its SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from re import fullmatch
from secrets import token_hex, token_urlsafe

import click

from dagorama.api.contract import TOKEN_PREFIX, Role
from dagorama.cli.output import NAMED, Answer, Output, output_options, print_out
from dagorama.cli.parameters import names_option, text

_ROLES = [role.value for role in Role]
_UNITS = {"h": "hours", "d": "days"}


# --- signing keys ----------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """Create and list signing keys, with which clients and workers verify each other's values."""


@keys.command("new")
def print_new_key() -> None:
    """Print a new key, for DAGORAMA_SIGNING_KEYS or the file named by DAGORAMA_SIGNING_KEYS_FILE."""
    from dagorama.values.keys import new_key

    click.echo(new_key())


@keys.command("list")
@output_options(NAMED)
def list_keys(output: Output) -> None:
    """Print the IDs of this process's keys, the signing one first, and their origin; never the keys themselves."""
    from dagorama.values.keys import where
    from dagorama.values.signing import keyring

    ids = [id.hex() for id in keyring().ids]
    data = [{"key": id, "signs": not number, "origin": where()} for number, id in enumerate(ids)]
    lines = [f"{id}  {'verifies' if number else 'signs and verifies'}" for number, id in enumerate(ids)]
    print_out(Answer("\n".join(lines), data, f"from {where()}", ids), output)


# --- tokens and their records ----------------------------------------------------------------------------


def new_token() -> str:
    """Return a new token: 256 random bits, in characters that variables, headers and files accept."""
    return TOKEN_PREFIX + token_urlsafe(32)


def record_of(
    token: str,
    role: str,
    *,
    name: str = "",
    queues: Sequence[str] | None = None,
    tolerations: Sequence[str] | None = None,
    expires: datetime | None = None,
    logs: bool = False,
) -> str:
    """Return the record of a token for the broker's token file.

    None means any queue, any toleration, or no expiry.
    """
    lines = ["[[token]]", f"name = {_quoted(name or f'{role}-{token_hex(4)}')}", f"role = {_quoted(role)}"]
    lines.append(f"sha256 = {_quoted(sha256(token.encode()).hexdigest())}")
    for field, names in (("queues", queues), ("tolerations", tolerations)):
        if names is not None:
            lines.append(f"{field} = [{', '.join(map(_quoted, names))}]")
    if logs:
        lines.append("logs = true")
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def append_record(path: Path, record: str) -> None:
    """Append a record to a broker's token file; create the file with mode 0600 if it does not exist."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "a") as file:
        file.write(f"\n{record}" if file.tell() else record)


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON leaves DEL as it is, and has two escapes for a character beyond U+FFFF."""
    escaped = (f"\\U{ord(each):08x}" if each == "\x7f" or each > "\uffff" else json.dumps(each)[1:-1] for each in text)
    return f'"{"".join(escaped)}"'


# --- the `tokens` command --------------------------------------------------------------------------------


@click.group()
def tokens() -> None:
    """Create access tokens for callers of a broker."""


@tokens.command("new")
@click.option("--role", type=click.Choice(_ROLES), required=True, help="Role granted to the holder.")
@click.option(
    "--name", type=text, default="", help="Shown in logs and error messages.  [default: the role and a number]"
)
@names_option("--queue", "queues", "QUEUE", "For workers: allow nodes of this queue.")
@names_option("--toleration", "tolerations", "TAINT", "For workers: allow this toleration.")
@click.option("--no-toleration", is_flag=True, help="For workers: allow no toleration.")
@click.option("--logs", is_flag=True, help="For readers and signallers: allow logs and stacks, which may hold secrets.")
@click.option(
    "--expires",
    help="When it expires: a duration such as 12h or 90d, or a time such as 2030-01-31T00:00:00Z.  [default: never]",
)
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Append the record to this token file of a broker."
)
def print_new_token(
    role: str, name: str, queues: tuple[str, ...], tolerations: tuple[str, ...], no_toleration: bool,
    logs: bool, expires: str | None, file: Path | None,
) -> None:  # fmt: skip
    """Create a token; print it once, with its record for the broker's --tokens file.

    A worker's token without --queue allows any queue, and without --toleration any toleration.
    """
    if role != "worker" and (queues or tolerations or no_toleration):
        raise click.UsageError(f"queues and tolerations apply to the role worker, not to {role}")
    if logs and role not in ("reader", "signaller"):
        raise click.UsageError("--logs is for the roles reader and signaller; other roles need no such permission")
    if tolerations and no_toleration:
        raise click.UsageError("--toleration and --no-toleration contradict each other")
    token = new_token()
    record = record_of(
        token, role, name=name, queues=queues or None, expires=None if expires is None else _time(expires),
        tolerations=tolerations if tolerations or no_toleration else None, logs=logs,
    )  # fmt: skip
    if file is None:
        click.echo(f"{token}\n\n{record}", nl=False)
        click.echo("The token, for DAGORAMA_AUTH_TOKEN, is shown only once; the record is for the broker.", err=True)
        return
    try:
        append_record(file, record)
    except OSError as error:
        raise click.ClickException(f"the record cannot be written to {file}: {error.strerror}") from None
    click.echo(token)
    click.echo(f"The token, for DAGORAMA_AUTH_TOKEN, is shown only once; its record is in {file}.", err=True)


def _time(text: str) -> datetime:
    span = fullmatch(r"(\d{1,6})([hd])", text)
    if span is not None:
        return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--expires {text}: must look like 12h, 90d or 2030-01-31T00:00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
