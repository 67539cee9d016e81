"""A file of tokens of a broker, as careful people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagorama.cli.credentials import new_token, record_of


class Tokens:
    """A file of tokens, and the tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    def add(self, name: str, role: str, **limits: Any) -> str:
        token = self._tokens.setdefault(name, new_token())
        self._records[name] = record_of(token, role, name=name, **limits)
        self.write()
        return token

    def take_away(self, name: str) -> None:
        del self._records[name]
        self.write()

    def write(self) -> None:
        # Renamed into place, as careful people do; the broker never sees a half of it.
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(self._records.values()))
        new.replace(self.path)

    def __getitem__(self, name: str) -> str:
        return self._tokens[name]
