"""`dagorama tokens`: makes the tokens that callers of a broker present, and the records by which it knows them.

The rule: a token is shown once; a file gets its SHA-256.
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

ROLES = ("spawner", "worker", "reader", "admin")
PREFIX = "dgt_"  #: by which a person, or a scanner for secrets, knows one
_UNITS = {"h": "hours", "d": "days"}


def new_token() -> str:
    """A fresh one: 256 bits, in a form that variables, headers and files take."""
    return PREFIX + token_urlsafe(32)


def record_of(
    token: str,
    role: str,
    *,
    name: str = "",
    queues: Sequence[str] | None = None,
    tolerations: Sequence[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """What goes into the broker's file of tokens. None: any queue, any toleration; for ever."""
    lines = ["[[token]]", f"name = {_quoted(name or f'{role}-{token_hex(4)}')}", f"role = {_quoted(role)}"]
    lines.append(f"sha256 = {_quoted(sha256(token.encode()).hexdigest())}")
    for field, names in (("queues", queues), ("tolerations", tolerations)):
        if names is not None:
            lines.append(f"{field} = [{', '.join(map(_quoted, names))}]")
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def append_record(path: Path, record: str) -> None:
    """Add it to a broker's file of tokens, which is made for its owner alone where there is none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "a") as file:
        file.write(f"\n{record}" if file.tell() else record)


def _quoted(text: str) -> str:
    """As TOML's basic strings are, which are JSON's but for one character."""
    return json.dumps(text).replace("\x7f", "\\u007f")


# --- the command -------------------------------------------------------------------------------------


@click.group()
def tokens() -> None:
    """Tokens: who may call a broker, and what."""


@tokens.command()
@click.option("--role", type=click.Choice(ROLES), required=True, help="What whoever has it may do.")
@click.option("--name", default="", help="For people, in logs and refusals.  [default: the role and a number]")
@click.option("--queue", "queues", multiple=True, help="A worker's: it may run nodes of this queue. May be repeated.")
@click.option("--toleration", "tolerations", multiple=True, help="A worker's: it may have this one. May be repeated.")
@click.option("--no-toleration", is_flag=True, help="A worker's: it may have none.")
@click.option("--expires", help="After so long, 12h or 90d, or at a time, 2030-01-31T00:00:00Z.  [default: never]")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="The broker's: add the record to it.")
def new(
    role: str, name: str, queues: tuple[str, ...], tolerations: tuple[str, ...], no_toleration: bool,
    expires: str | None, file: Path | None,
) -> None:  # fmt: skip
    """Make a token and print it, once, and its record for the broker's --tokens file.

    A worker's token without --queue, or without --toleration, lets it have any of them.
    """
    if role != "worker" and (queues or tolerations or no_toleration):
        raise click.UsageError(f"queues and tolerations are a worker's, not a {role}'s")
    if tolerations and no_toleration:
        raise click.UsageError("--toleration and --no-toleration contradict each other")
    token = new_token()
    record = record_of(
        token, role, name=name, queues=queues or None, expires=None if expires is None else _time(expires),
        tolerations=tolerations if tolerations or no_toleration else None,
    )  # fmt: skip
    if file is None:
        click.echo(f"{token}\n\n{record}", nl=False)
        click.echo("The token, for DAGORAMA_AUTH_TOKEN, is shown this once; the rest is the broker's.", err=True)
        return
    try:
        append_record(file, record)
    except OSError as error:
        raise click.ClickException(f"the record cannot be written to {file}: {error.strerror}") from None
    click.echo(token)
    click.echo(f"The token, for DAGORAMA_AUTH_TOKEN, is shown this once; its record is in {file}.", err=True)


def _time(text: str) -> datetime:
    span = fullmatch(r"(\d{1,6})([hd])", text)
    if span is not None:
        return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--expires {text}: it has to be like 12h, 90d or 2030-01-31T00:00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
