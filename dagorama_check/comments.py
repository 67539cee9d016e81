"""Comments that silence findings: `# noqa: DAG001`, `# dagorama: ignore[DAG001]`, and both without codes."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Collection, Sequence
from re import Pattern

#: The comment noqa as flake8 reads it: a colon that no code follows belongs to the words of the comment.
NOQA = re.compile(r"#\s*noqa(?!\w)(?:\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)
#: Brackets must be closed: a comment with a mistake must not silence more than it says.
IGNORE = re.compile(r"#\s*dagorama:\s*ignore(?:\[(?P<codes>[^\]]*)\])?(?![\w\[])", re.IGNORECASE)
#: Stands for all codes.
ALL = frozenset({""})


def silenced_lines(lines: Sequence[str], comments: Collection[Pattern[str]]) -> dict[int, frozenset[str]]:
    """Return the silenced codes of each line that has such a comment; the empty code stands for all."""
    if not any(pattern.search(line) for line in lines for pattern in comments):
        return {}
    found: dict[int, frozenset[str]] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.COMMENT and (codes := _codes_in(token.string, comments)):
                found[token.start[0]] = found.get(token.start[0], frozenset()) | codes
    except (tokenize.TokenError, SyntaxError):
        # Only files that can be parsed get here; comments behind a place that puzzles the tokenizer silence nothing.
        return found
    return found


def _codes_in(comment: str, comments: Collection[Pattern[str]]) -> frozenset[str]:
    """Return the codes that a comment silences, or ALL."""
    codes: frozenset[str] = frozenset()
    for match in (match for pattern in comments for match in pattern.finditer(comment)):
        codes |= ALL if match["codes"] is None else _split(match["codes"])
    return codes


def _split(codes: str) -> frozenset[str]:
    return frozenset(code.upper() for code in re.split(r"[\s,]+", codes) if code)
