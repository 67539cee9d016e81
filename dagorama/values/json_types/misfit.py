"""Why a value does not fit its type: found where it is, and given its path on the way out."""

from __future__ import annotations

from reprlib import Repr

_short = Repr()
_short.maxstring = _short.maxother = 40


class Misfit(Exception):
    """A value, or JSON data, do not fit a type."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str] = []

    def at(self, step: str) -> Misfit:
        """Add a step before the ones that are known, such as ".price" or "[3]"."""
        self.steps.append(step)
        return self

    def sentence(self, where: str) -> str:
        """Return the whole text, for a value that `where` names."""
        return f"{where}{''.join(reversed(self.steps))} {self.what}"


class Unsupported(Exception):
    """An annotation has no JSON type."""


def kind_of(value: object) -> str:
    """Return the name of the type of a value, for errors."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def key_step(key: object) -> str:
    """Return the step of a path that leads to a key of a dict."""
    return f"[{_short.repr(key)}]"
