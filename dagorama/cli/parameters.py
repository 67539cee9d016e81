"""Types of options that more than one command has, and the current folder.

The rule: an option that was passed is never treated as if it had not been, and a number is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isnan
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number within a range. NaN, which is neither below nor above any limit, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def text(value: str) -> str:
    """Return a text as it came. Raises BadParameter if UTF-8 cannot hold it.

    Python passes bytes of the command line on that are not UTF-8 as such characters.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{value!r} is not valid UTF-8.") from None
    return value


def filled(value: str) -> str:
    """Return the name of a queue, a taint or a module. Raises BadParameter if it is empty, or as `text` does."""
    if not value.strip():
        raise click.BadParameter("it is empty; leave out the option, or set the variable that it comes from.")
    return text(value)


def names_option(flag: str, parameter: str, metavar: str, help: str) -> Callable[[F], F]:
    """Return an option that takes a name, as `filled` checks it, and may be repeated."""
    return click.option(flag, parameter, type=filled, multiple=True, metavar=metavar, help=f"{help} May be repeated.")


def current_folder() -> str:
    """Return the current folder. Raises UsageError if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise click.UsageError("the current folder was deleted") from None


def filter_option(*declarations: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option with a text, which is empty if the option was not passed.

    Refuse an empty text: it would select everything, and usually comes from a shell variable that is not set.
    """
    return click.option(*declarations, callback=_passed, help=help)


def _passed(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if value == "":
        raise click.BadParameter("it is empty; leave out the option to select everything.")
    return value or ""
