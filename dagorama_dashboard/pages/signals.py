"""The form with which a person sends a signal to a node that waits for it, made of the JSON schema of its type.

The rule: a form is a convenience. The broker, and the worker that uses the value, decide whether it fits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from starlette.responses import Response

from dagorama.api import broker_pb2 as pb
from dagorama.errors import DagoramaError, RequestRejected
from dagorama.values.typed_json import read_json
from dagorama_dashboard.pages.login import own_path
from dagorama_dashboard.web.forms import Form, form_of
from dagorama_dashboard.web.look import Look

#: Fields of a form; a type with more is written as JSON.
MOST_FIELDS = 30
#: The beginning of the names of fields of records, and the name of the field of a value that is no record.
PREFIX, VALUE = "field.", "value"
_INPUTS = {"string": "text", "integer": "number", "number": "number", "boolean": "checkbox"}


class Field(NamedTuple):
    """One input of a form."""

    name: str  #: of the input
    label: str
    input: str  #: "text", "number", "checkbox", or "select"
    step: str = "any"  #: of a number
    options: tuple[str, ...] = ()  #: of a select, as JSON
    is_required: bool = True


def fields_of(text: bytes) -> list[Field]:
    """Return the inputs for a value of a type; none: it is written as JSON."""
    whole = json.loads(text) if text else None
    if not isinstance(whole, dict):
        return []
    found = _resolved(whole, whole)
    if found.get("type") != "object":
        field = _field(VALUE, VALUE, found, True)
        return [field] if field is not None else []
    properties, required = found.get("properties", {}), found.get("required", [])
    if not properties or len(properties) > MOST_FIELDS or found.get("additionalProperties"):
        return []
    fields = [
        _field(PREFIX + name, name, _resolved(each, whole), name in required) for name, each in properties.items()
    ]
    return [field for field in fields if field is not None] if None not in fields else []


def _resolved(schema: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    name = schema.get("$ref")
    found = whole.get("$defs", {}).get(name.removeprefix("#/$defs/"), {}) if isinstance(name, str) else schema
    return found if isinstance(found, dict) else {}


def _field(name: str, label: str, schema: Mapping[str, Any], is_required: bool) -> Field | None:
    """Return the input for a value; None: there is none for values like this."""
    options = schema.get("enum")
    if isinstance(options, list):
        return Field(name, label, "select", options=tuple(map(json.dumps, options)), is_required=is_required)
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _INPUTS:
        return None
    if kind == "boolean" and not is_required:
        # An untouched checkbox is sent as false, also if the default is true: a choice can be left out.
        return Field(name, label, "select", options=("true", "false"), is_required=False)
    return Field(name, label, _INPUTS[kind], "1" if kind == "integer" else "any", is_required=is_required)


def value_of(form: Form) -> bytes:
    """Return the value in a form as JSON. Raises RequestRejected if a field has none."""
    if text := form.get("json"):
        try:
            return json.dumps(read_json(text), allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise RequestRejected(f"the value is not JSON ({error}); text needs quotation marks") from None
    fields = [field for field in map(str.strip, form.all("inputs")) if field]
    values = {name: _read(form, name, kind) for kind, _, name in (field.partition(" ") for field in fields)}
    if VALUE in values:
        return json.dumps(values[VALUE]).encode()
    return json.dumps({name.removeprefix(PREFIX): each for name, each in values.items() if each is not None}).encode()


def _read(form: Form, name: str, kind: str) -> Any:
    """Return the value of an input; None: it was left empty."""
    text = form.get(name)
    if kind == "checkbox":
        return bool(text)
    if not text:
        return "" if kind == "text!" else None
    if kind.startswith("text"):
        return text
    try:
        return read_json(text)  # a number, or an option of a select
    except ValueError:
        raise RequestRejected(f"{name.removeprefix(PREFIX)} is {text!r}, which is no number") from None


async def send(look: Look) -> Response:
    """Send the signal of a form, and go back to the page of the node."""
    form = await form_of(look.request)
    goal, name = own_path(form.get("next", "/")), form.get("signal")
    try:
        instance = UUID(form.get("id")).bytes
    except ValueError:
        raise RequestRejected("the ID in the request is not one of an instance") from None
    try:
        request = pb.SendSignalRequest(instance=instance, name=name, value=value_of(form), key=form.get("key"))
        reply = await look.viewer.ask("SendSignal", request)
    except DagoramaError as error:
        return look.back(goal, f"{error}", is_error=True)
    if reply.known:
        return look.back(goal, f"The signal {name} was sent before")
    what = "was given to a node" if reply.node else "is kept until a node waits for it"
    return look.back(goal, f"The signal {name} {what}")
