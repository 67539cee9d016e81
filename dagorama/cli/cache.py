"""`dagorama cache`: the cached values of functions, and a way to forget them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from dagorama.cli.base import Answer, broker_command
from dagorama.client.display.tables import pluralize, table, time_text

if TYPE_CHECKING:
    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection


@click.group()
def cache() -> None:
    """List the cached values of functions, or forget them."""


@cache.command("list")
@broker_command
def list_(broker: Connection) -> Answer:
    """List the functions that have cached values, and how many."""
    found = broker.list_cache()
    rows = [
        (each.function, f"{each.values}", time_text(each.oldest), time_text(each.newest)) for each in found.functions
    ]
    looked_up = f"since startup: {found.hits} hits, {found.misses} misses"
    text = "\n\n".join([table(("function", "values", "oldest", "newest"), rows), looked_up]) if rows else looked_up
    return Answer(text, {"hits": found.hits, "misses": found.misses, "functions": list(map(_data, found.functions))})


@cache.command()
@click.argument("function")
@broker_command
def clear(broker: Connection, function: str) -> Answer:
    """Forget the cached values of a function, so that its next calls run.

    FUNCTION is "package.module:Class.method", as `dagorama cache list` shows it. Nodes that have such a value keep it.
    """
    values = broker.clear_cache(function)
    text = f"{pluralize(values, 'value', 'values')} forgotten"
    if not values:
        text += f": no function {function!r} has cached values{_likely(broker, function)}"
    return Answer(text, {"values": values})


def _likely(broker: Connection, function: str) -> str:
    names = [each.function for each in broker.list_cache().functions]
    likely = get_close_matches(function, names, n=1)
    return f"; did you mean {likely[0]!r}?" if likely else "; `dagorama cache list` shows which ones have"


def _data(function: broker_pb2.CachedFunction) -> dict[str, object]:
    return {
        "function": function.function, "values": function.values, "oldest": function.oldest, "newest": function.newest,
    }  # fmt: skip
