"""Match the texts of this repository against the patterns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.prose.patterns import PATTERNS
from tests.prose.texts import Text, texts_below
from tests.support.packages import PACKAGES, ROOT

SOURCES = (*PACKAGES, "proto", "samples", "benchmarks", "tests/support")
DOCUMENTS = ("README.md", "docs", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github")


@dataclass(frozen=True)
class Finding:
    """A phrase that a pattern has found."""

    path: Path
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.phrase!r}: {self.instead}"


def findings_below(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield all findings in these files and folders."""
    for text in texts_below(paths):
        yield from findings_in(text)


def findings_in(text: Text) -> Iterator[Finding]:
    """Yield the findings of one text, in the order of their places."""
    found = [(span, pattern) for pattern in PATTERNS for span in pattern.find(text.kind, text.words)]
    for (start, end), pattern in sorted(found, key=lambda each: each[0]):
        phrase = " ".join(text.words[start:end].split())
        yield Finding(text.path, text.line_at(start, phrase), phrase, pattern.instead)
