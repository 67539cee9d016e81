"""The forms of values that are texts in JSON, which library and broker read: times, IDs, decimal numbers and bytes.

Python reads other forms too, and drops digits of a second after the sixth.
"""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from uuid import UUID

_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_OFFSET = r"(Z|[+-][0-9]{2}:[0-9]{2})"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DATETIME, _TIME = re.compile(f"{_DATE}T{_CLOCK}{_OFFSET}"), re.compile(f"{_CLOCK}{_OFFSET}?")
_DURATION = re.compile(
    r"([+-]?)P(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]{1,6}))?S)?)?"
)
#: In the comment of a JSON schema: a library reads what it describes, and may convert it.
READ_BY_LIBRARY = "read by a library"
#: The patterns in JSON schemas of integers that are keys, and of decimal numbers.
INTEGER_PATTERN = "^-?(0|[1-9][0-9]*)$"
DECIMAL_PATTERN = r"^[+-]?[0-9]*\.?[0-9]*([Ee][+-]?[0-9]+)?$"
#: The first integer with more digits than Python converts to text and back, 4,300.
TOO_LONG: Final = 10**4300

_INTEGER = re.compile(INTEGER_PATTERN)


def read_datetime(text: str) -> datetime:
    """Return a point in time with a time zone. Raises ValueError."""
    if not _DATETIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)


def read_time(text: str) -> time:
    """Return a time of day. Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return time.fromisoformat(text)


def read_date(text: str) -> date:
    """Return a date. Raises ValueError."""
    if not re.fullmatch(_DATE, text):
        raise ValueError(text)
    return date.fromisoformat(text)


def read_duration(text: str) -> timedelta:
    """Return a duration of days, hours, minutes and seconds. Raises ValueError, or OverflowError."""
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        raise ValueError(text)
    sign, days, hours, minutes, seconds, fraction = found.groups()
    micro = int((fraction or "").ljust(6, "0"))
    value = timedelta(int(days or 0), int(seconds or 0), micro, 0, int(minutes or 0), int(hours or 0))
    return -value if sign == "-" else value


def read_decimal(text: str) -> Decimal:
    """Return a finite decimal number. Raises ValueError."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or "_" in text or text != text.strip():
        raise ValueError(text)
    return value


def read_uuid(text: str) -> UUID:
    """Return a UUID with its four hyphens. Raises ValueError."""
    value = UUID(text)
    if str(value) != text.lower():
        raise ValueError(text)
    return value


def read_bytes(text: str) -> bytes:
    """Return the bytes of a Base64 text. Raises ValueError."""
    return b64decode(text, validate=True)


def read_integer(text: str) -> int:
    """Return an integer that is the key of an object. Raises ValueError."""
    if not _INTEGER.fullmatch(text) or text == "-0":
        raise ValueError(text)
    return int(text)
