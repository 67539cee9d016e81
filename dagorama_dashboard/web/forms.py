"""The fields of a form that a page has posted."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import Request

from dagorama.errors import RequestRejected

FORM = "application/x-www-form-urlencoded"
#: Fields of a form: the IDs of the instances on a page, several times.
MOST_FIELDS = 2_000


class Form:
    """Fields by name; a name may occur several times."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        return self._fields.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        return self._fields.get(name, [])


def parsed(text: str) -> Form:
    """Return the fields of a query, or of the body of a form. Raises RequestRejected."""
    try:
        return Form(parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise RequestRejected(f"the request has more than {MOST_FIELDS:,} fields") from None


async def form_of(request: Request) -> Form:
    """Return the fields in the body of a request, whose length the guard has bounded. Raises RequestRejected."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise RequestRejected(f"the request has a body of the type {kind!r}, and {FORM} is expected")
    return parsed((await request.body()).decode("utf-8", "replace"))
