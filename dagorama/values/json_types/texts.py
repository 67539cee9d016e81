"""JSON types of values that are texts in JSON: dates, times, durations, IDs, decimal numbers and bytes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from dagorama.api.text_forms import (
    DECIMAL_PATTERN,
    read_bytes,
    read_date,
    read_datetime,
    read_decimal,
    read_duration,
    read_time,
    read_uuid,
)
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


def _write_time(value: time) -> str:
    offset = value.utcoffset()
    if offset is None and value.tzinfo is not None:
        raise Misfit("is a time in a zone whose offset depends on the date: pass a datetime")
    _check_offset(offset or timedelta())
    return value.isoformat()


def _check_offset(offset: timedelta) -> None:
    if offset % timedelta(minutes=1):
        raise Misfit("has an offset from UTC with seconds, which ISO 8601 cannot express")


_MICROSECOND = timedelta(microseconds=1)


def _write_duration(value: timedelta) -> str:
    total = value // _MICROSECOND
    sign, total = ("-", -total) if total < 0 else ("", total)
    seconds, micro = divmod(total, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    fraction = f".{micro:06}".rstrip("0") if micro else ""
    clock = f"T{seconds}{fraction}S" if seconds or micro or not days else ""
    return f"{sign}P{f'{days}D' if days else ''}{clock}"


# --- other texts ----------------------------------------------------------------------------------------


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise Misfit("is not a finite number")
    return str(value)


def texts() -> dict[object, Shape]:
    """Return the JSON types of values that are texts in JSON by their Python types."""
    written = (
        Written(datetime, _write_datetime, read_datetime, {"format": "date-time"}),
        Written(date, date.isoformat, read_date, {"format": "date"}),
        Written(time, _write_time, read_time, {"format": "time"}),
        Written(timedelta, _write_duration, read_duration, {"format": "duration"}),
        Written(UUID, str, read_uuid, {"format": "uuid"}),
        Written(Decimal, _write_decimal, read_decimal, {"pattern": DECIMAL_PATTERN}),
        Written(
            bytes,
            lambda value: b64encode(value).decode(),
            read_bytes,
            {"contentEncoding": "base64"},
        ),
    )
    return {next(iter(shape.types)): shape for shape in written}
