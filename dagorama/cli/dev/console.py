"""The output of `dagorama dev`: lines of its child processes, each with the name of the one that wrote it."""

from __future__ import annotations

import os
import sys

import click

from dagorama.settings import no_color

#: The width of names, the longest of which is:
_WIDTH = len("dashboard")
_COLORS = {"broker": "cyan", "check": "red", "worker": "green", "dashboard": "magenta", "dev": "yellow"}


class Console:
    """Prints lines on stderr; until `release`, it holds them back, so that the summary comes first."""

    def __init__(self) -> None:
        self._held: list[tuple[str, str]] | None = []
        self._color = False if no_color() else None  # None: if it is a terminal
        self._closed: set[bool] = set()  #: outputs that can no longer be written: True is stderr, False stdout

    def line(self, name: str, text: str) -> None:
        """Print a line of a child, or hold it back."""
        if self._held is None:
            self._print(name, text)
        else:
            self._held.append((name, text))

    def say(self, text: str) -> None:
        """Print a line of our own at once."""
        self._print("dev", text)

    def take(self, name: str) -> list[str]:
        """Return the lines of a child that are held back, and forget them."""
        held = self._held or []
        if self._held is not None:
            self._held = [line for line in held if line[0] != name]
        return [text for whose, text in held if whose == name]

    def release(self) -> None:
        """Print the lines that were held back, and all others from now on."""
        held, self._held = self._held, None
        for name, text in held or ():
            self._print(name, text)

    def summary(self, name: str, text: str) -> None:
        """Print one of the lines that say where things are, on stdout."""
        self._echo(f"{name:{_WIDTH}}  {text}", error=False)

    def _print(self, name: str, text: str) -> None:
        self._echo(f"{click.style(f'{name:{_WIDTH}} |', fg=_COLORS[name])} {text}", error=True)

    def _echo(self, text: str, error: bool) -> None:
        if error in self._closed:
            return
        try:
            click.echo(text, err=error, color=self._color)
        except OSError:
            # The children go on until they are told to end, and the exit must not fail on the rest of the buffer.
            self._closed.add(error)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, (sys.stderr if error else sys.stdout).fileno())
            os.close(null)
