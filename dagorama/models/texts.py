"""Checks names, IDs and keys that a user gives: some texts fit into no message, or into no store.

The rule: the broker refuses the same texts, but by then the call that gave one is no longer on the stack.
"""

from __future__ import annotations

from unicodedata import category

#: Characters of the name of a queue or of a taint.
LONGEST_QUEUE = 4096


def check_content(text: str, what: str, least: int, most: int) -> str:
    """Return a text of `least` to `most` characters as it came.

    Raises ValueError, which begins with `what`, for other lengths, a NUL or a lone surrogate.
    """
    if not least <= len(text) <= most:
        raise ValueError(f"{what} has {len(text)} characters: {least} to {most} are allowed")
    return check_characters(text, what)


def check_characters(text: str, what: str) -> str:
    """Return a text as it came. Raises ValueError if it has a NUL or a lone surrogate."""
    if "\0" in text:
        raise ValueError(f"{what} is {shown(text)}: a NUL character is not allowed, because not all stores can hold it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} is {shown(text)}, which has a lone surrogate and cannot be encoded as UTF-8: decode the bytes that"
            " it comes from with their own encoding"
        ) from None
    return text


def check_printable(text: str, what: str) -> str:
    """Return a text as it came. Raises ValueError if people cannot see it in a list, or if it takes several lines."""
    if not text.strip():
        raise ValueError(f"{what} is {shown(text)}, which is blank: give it a character that can be seen")
    if any(category(each) in ("Cc", "Zl", "Zp") for each in text):
        raise ValueError(f"{what} is {shown(text)}: line breaks and control characters are not allowed")
    return text


def shown(text: str) -> str:
    """Return a text in quotes for a message, without its end if it is long."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."
