"""Comments that silence findings: `# noqa: DAG001`, `# dagorama: ignore[DAG001]`, and both without codes."""

from __future__ import annotations

import io
import re
import tokenize

#: A code, or several; in brackets for ours. Without codes, all are silenced. A colon without a code
#: belongs to the words of the comment, as for flake8.
_NOQA = re.compile(r"#\s*noqa(?!\w)(?P<colon>\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)
_IGNORE = re.compile(r"#\s*dagorama:\s*ignore(?!\w)(?:\[(?P<codes>[^\]]*)\])?", re.IGNORECASE)
#: Stands for all codes.
ALL = frozenset({""})


def silenced_lines(source: bytes) -> dict[int, frozenset[str]]:
    """Return the silenced codes of each line that has such a comment; the empty code stands for all."""
    if b"noqa" not in source.lower() and b"dagorama:" not in source.lower():
        return {}
    found: dict[int, frozenset[str]] = {}
    try:
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.COMMENT:
                codes = codes_in(token.string)
                if codes:
                    found[token.start[0]] = found.get(token.start[0], frozenset()) | codes
    except (tokenize.TokenError, SyntaxError):
        # Only files that can be parsed get here; comments behind a place that puzzles the tokenizer silence nothing.
        return found
    return found


def codes_in(comment: str) -> frozenset[str]:
    """Return the codes that a comment silences."""
    codes: frozenset[str] = frozenset()
    for pattern in (_NOQA, _IGNORE):
        for match in pattern.finditer(comment):
            listed = frozenset(code.upper() for code in re.split(r"[\s,]+", match["codes"] or "") if code)
            codes |= listed or ALL
    return codes
