"""JSON types of values that are texts in JSON: dates, times, durations, ids, decimal numbers and bytes."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from dagorama.values.json_types.misfit import Misfit
from dagorama.values.json_types.shape import Definitions, Holes, Shape


class Written(Shape):
    """A value that is a text in JSON, such as a date or a UUID."""

    kinds = frozenset({"string"})

    def __init__(
        self, kind: type, write: Callable[[Any], str], read: Callable[[str], Any], schema: dict[str, Any]
    ) -> None:
        super().__init__(kind.__name__)
        self._kind = kind
        self._write, self._read = write, read
        self._schema = {"type": "string", **schema}
        self.types = frozenset({kind})

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        return self._write(value) if type(value) is self._kind else self.unfit(value, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        return self.decode_key(data) if type(data) is str else self.unread(data, holes)

    def check_as_key(self) -> None:
        return

    def decode_key(self, text: str) -> Any:
        try:
            return self._read(text)
        except (ValueError, ArithmeticError) as error:
            raise Misfit(f"is a string of another form; {self.name} is expected") from error

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return dict(self._schema)


# --- dates and times ------------------------------------------------------------------------------------


def _write_datetime(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        raise Misfit("is a datetime without a time zone: give it one, such as datetime.now(UTC)")
    _check_offset(offset)
    return f"{value.isoformat()[:-6]}Z" if not offset else value.isoformat()


# Python reads other forms too, and drops digits after the sixth.
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_OFFSET = r"(Z|[+-][0-9]{2}:[0-9]{2})"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DATETIME, _TIME = re.compile(f"{_DATE}T{_CLOCK}{_OFFSET}"), re.compile(f"{_CLOCK}{_OFFSET}?")


def _read_datetime(text: str) -> datetime:
    if not _DATETIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _read_time(text: str) -> time:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return time.fromisoformat(text)


def _write_time(value: time) -> str:
    offset = value.utcoffset()
    if offset is None and value.tzinfo is not None:
        raise Misfit("is a time in a zone whose offset depends on the date: pass a datetime")
    _check_offset(offset or timedelta())
    return value.isoformat()


def _check_offset(offset: timedelta) -> None:
    if offset % timedelta(minutes=1):
        raise Misfit("has an offset from UTC with seconds, which ISO 8601 cannot express")


def _read_date(text: str) -> date:
    if not re.fullmatch(_DATE, text):
        raise ValueError(text)
    return date.fromisoformat(text)


_MICROSECOND = timedelta(microseconds=1)
_DURATION = re.compile(
    r"([+-]?)P(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]{1,6}))?S)?)?"
)


def _write_duration(value: timedelta) -> str:
    total = value // _MICROSECOND
    sign, total = ("-", -total) if total < 0 else ("", total)
    seconds, micro = divmod(total, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    fraction = f".{micro:06}".rstrip("0") if micro else ""
    clock = f"T{seconds}{fraction}S" if seconds or micro or not days else ""
    return f"{sign}P{f'{days}D' if days else ''}{clock}"


def _read_duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        raise ValueError(text)
    sign, days, hours, minutes, seconds, fraction = found.groups()
    micro = int((fraction or "").ljust(6, "0"))
    value = timedelta(int(days or 0), int(seconds or 0), micro, 0, int(minutes or 0), int(hours or 0))
    return -value if sign == "-" else value


# --- other texts ----------------------------------------------------------------------------------------


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise Misfit("is not a finite number")
    return str(value)


def _read_decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or "_" in text or text != text.strip():
        raise ValueError(text)
    return value


def _read_uuid(text: str) -> UUID:
    value = UUID(text)
    if str(value) != text.lower():
        raise ValueError(text)
    return value


def texts() -> dict[object, Shape]:
    """Return the JSON types of values that are texts in JSON by their Python types."""
    written = (
        Written(datetime, _write_datetime, _read_datetime, {"format": "date-time"}),
        Written(date, date.isoformat, _read_date, {"format": "date"}),
        Written(time, _write_time, _read_time, {"format": "time"}),
        Written(timedelta, _write_duration, _read_duration, {"format": "duration"}),
        Written(UUID, str, _read_uuid, {"format": "uuid"}),
        Written(Decimal, _write_decimal, _read_decimal, {"pattern": r"^[+-]?[0-9]*\.?[0-9]*([Ee][+-]?[0-9]+)?$"}),
        Written(
            bytes,
            lambda value: b64encode(value).decode(),
            lambda text: b64decode(text, validate=True),
            {"contentEncoding": "base64"},
        ),
    )
    return {next(iter(shape.types)): shape for shape in written}
