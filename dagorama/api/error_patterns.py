"""The part of messages that is the same if they are about the same error: the broker groups failed nodes by it.

Only numbers, IDs and quoted text may differ within a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: A control character between messages, so that one substitution replaces parts of many.
_BETWEEN = "\x1f"
#: Stands for a part in which the messages of a group differ.
DETAIL = "…"
_DIGITS = str.maketrans("123456789", "0" * 9)
#: Parts in which messages about the same error differ. All alternatives begin with one set of characters, which makes
#: the search fast.
_DETAILS = re.compile(
    rf"""['"0-9a-fA-F](?:
        (?<=')(?<!\w')[^'{_BETWEEN}]*'(?!\w)                              # quoted text, not an apostrophe
      | (?<=")(?<!\w")[^"{_BETWEEN}]*"(?!\w)
      | (?<=[0-9a-fA-F])(?<!\w.)[0-9a-fA-F]{{7}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}}\b
      | (?<=0)(?<!\w.)[xX][0-9a-fA-F]+\b
      | (?<=[0-9a-f])(?<!\w.)(?:(?<=\d)|(?=[a-f]*\d))[0-9a-f]{{7,}}\b      # the ID of a commit
      | (?<=\d)\d*(?:[.,:_]\d+)*(?:[eE][-+]?\d+\b)?                        # a number, a time, an address
    )""",
    re.VERBOSE | re.DOTALL,
)


def first_lines(messages: Sequence[str]) -> list[str]:
    """Return the first lines of messages, without blanks around them."""
    return [message.strip() if message.isprintable() else _first_line(message) for message in messages]


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0].rstrip().replace(_BETWEEN, " ")


def without_details(lines: Sequence[str]) -> list[str]:
    """Return texts of one line with `DETAIL` in place of numbers, IDs, hexadecimal digits and quoted text."""
    if not lines:
        return []
    zeros = _BETWEEN.join(lines).translate(_DIGITS).split(_BETWEEN)  # most texts differ in digits only
    distinct = list(dict.fromkeys(zeros))
    text = _DETAILS.sub(DETAIL, _BETWEEN.join(distinct)).replace(f" -{DETAIL}", f" {DETAIL}")
    found = dict(zip(distinct, text.split(_BETWEEN), strict=True))
    return [found[zero] for zero in zeros]
