"""Ids as people type them: whole, with or without dashes, or as many of the first digits as tell one from others."""

from __future__ import annotations

from collections.abc import Sequence
from re import fullmatch
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: hexadecimal digits of a whole id, and the fewest that stand for one
WHOLE, FEWEST = 32, 4


def id_digits(text: str) -> str:
    """The digits in lower case and without dashes. Raises BadParameter."""
    digits = text.strip().lower().replace("-", "")
    if not fullmatch(f"[0-9a-f]{{{FEWEST},{WHOLE}}}", digits):
        raise click.BadParameter(f"{text!r} is not an id, nor the first {FEWEST} or more of its hexadecimal digits.")
    return digits


INSTANCE = click.argument("instance", type=id_digits)
NODES = click.argument("nodes", type=id_digits, nargs=-1, metavar="[NODE]...")


def whole_ids(broker: Connection, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
    """The whole ids, which the broker is asked for only if one was not given whole. Raises BrokerError."""
    if all(len(digits) == WHOLE for digits in (instance, *nodes)):
        return bytes.fromhex(instance), [bytes.fromhex(digits) for digits in nodes]
    return broker.find_ids(instance, nodes)
