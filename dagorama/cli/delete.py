"""The command that deletes ended instances, by their IDs or all that match."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import LABELS, Answer, fail, id_digits, named_command, whole_ids
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.output import say
from dagorama.cli.parameters import filter_option
from dagorama.client.display.tables import pluralize
from dagorama.errors import NotFound, RequestRejected

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command()
@click.argument("instances", type=id_digits, nargs=-1, metavar="[INSTANCE]...")
@click.option("--completed", is_flag=True, help="All instances that ended without a failed node.")
@click.option("--failed", is_flag=True, help="All ended instances with a failed or cancelled node.")
@filter_option("--definition", help="Only of this definition, 'package.module:Class'.")
@LABELS
@click.option("--dry-run", is_flag=True, help="Only print which instances would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask before all instances that match are deleted.")
@named_command
def delete(
    broker: Connection,
    instances: Sequence[str],
    completed: bool,
    failed: bool,
    dry_run: bool,
    yes: bool,
    **of: str | Mapping[str, str],
) -> Answer:
    """Delete ended instances with their values, before their retention is over.

    Pass their IDs, or --completed or --failed with filters. An instance with unfinished nodes is not deleted, and
    neither is one whose values another instance needs; the others are deleted all the same.
    """
    matches = completed or failed
    if matches is bool(instances) or (instances and any(of.values())):
        raise click.UsageError("name instances, or pass --completed or --failed, with --definition and --label")
    ids = _matching(broker, completed, failed, of) if matches else _named(broker, instances)
    if matches and ids and not dry_run and not yes:
        _ask(len(ids))
    deleted = [] if dry_run else [id for id in ids if _is_deleted(broker, id, is_only=len(ids) == 1 and not matches)]
    named = [f"{UUID(bytes=id)}" for id in (ids if dry_run else deleted)]
    what = "would be deleted" if dry_run else "deleted"
    text = "\n".join([*(named if dry_run else []), f"{pluralize(len(named), 'instance', 'instances')} {what}"])
    is_refused = not matches and not dry_run and len(deleted) < len(ids)
    code = ExitCode.REFUSED if is_refused else ExitCode.OK
    return Answer(text, {"deleted": named, "dry_run": dry_run}, names=named, code=code)


def _named(broker: Connection, instances: Sequence[str]) -> list[bytes]:
    """Return the complete IDs, each once. Raises BrokerError if one of them is not known."""
    return list(dict.fromkeys(whole_ids(broker, id)[0] for id in instances))


def _matching(
    broker: Connection, completed: bool, failed: bool, of: Mapping[str, str | Mapping[str, str]]
) -> list[bytes]:
    found = broker.list_instances(failed=failed and not completed, **of).instances  # type: ignore[arg-type]  # checked
    return [info.instance for info in found if info.ended and (failed if info.failed else completed)]


def _ask(number: int) -> None:
    """Ask a person; without a terminal, refuse."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{number:,} instances match: pass --yes to delete them, or --dry-run to list them")
    try:
        is_agreed = click.confirm(f"Delete {pluralize(number, 'instance', 'instances')}?", err=True)
    except click.Abort:  # Ctrl-C, or the end of the input
        click.echo(err=True)
        fail("nothing was deleted", ExitCode.INTERRUPTED)
    if not is_agreed:
        fail("nothing was deleted", ExitCode.REFUSED)


def _is_deleted(broker: Connection, id: bytes, is_only: bool) -> bool:
    """Delete an instance; unless it is the only one that was named, say why it cannot be deleted, and go on."""
    try:
        broker.delete(id)
    except (RequestRejected, NotFound) as error:
        if is_only:
            raise
        say(f"not deleted: {error}", err=True)
        return False
    return True
