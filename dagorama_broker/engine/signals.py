"""Sends signals: loads the instance that is named, lets the scheduler decide, and answers when that is durable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.signals import NewSignal, WaitRow
from dagorama_broker.scheduler import Sent, refuse_ended

#: The Python types of JSON data for each type of a schema.
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "number": (int, float), "integer": (int, float),
}  # fmt: skip


async def send(broker: Broker, instance: bytes, signal: NewSignal, data: object) -> Sent:
    """Send a signal, whose JSON data are `data`; return when it is durable.

    Raises NotFound, InvalidArgument if the value plainly is not what the node waits for, Conflict if another one with
    the same key was sent, FailedPrecondition if no node waits for it any longer, or ResourceExhausted.
    """
    with broker.lookups.holds.on(instance):
        while (found := broker.scheduler.instance(instance)) is None:
            stored = await broker.lookups.stored_instance(instance)
            if stored.ended is not None and broker.scheduler.instance(instance) is None:
                return refuse_ended(stored.mail, signal, stored.ended)
        broker.see_time()
        wait = broker.scheduler.next_wait(found, signal.name)
        if wait is not None:
            refuse_misfit(wait, data)
        sent = broker.scheduler.send_signal(found, signal)
        await broker.commits.wait_durable()
        return sent


def refuse_misfit(wait: WaitRow, data: object) -> None:
    """Raise InvalidArgument if data plainly do not fit the schema of a wait; the worker that uses them checks all."""
    if not wait.schema:
        return
    schema = json.loads(wait.schema)
    if type(schema) is dict and (why := misfit(schema, data, schema.get("$defs", {}))):
        raise InvalidArgument(f"the signal {wait.name!r} does not fit the type that its node waits for: it {why}")


def misfit(schema: Mapping[str, Any], data: object, definitions: Mapping[str, Any], path: str = "") -> str:
    """Return why data plainly do not fit a schema; empty: they may fit. Only records of records are looked into."""
    if type(schema.get("$ref")) is str:
        schema = definitions.get(schema["$ref"].removeprefix("#/$defs/"), {})
    at = f" at {path}" if path else ""
    kind = schema.get("type")
    if type(kind) is str and kind in _KINDS and (not isinstance(data, _KINDS[kind]) or _is_wrong_bool(kind, data)):
        return f"is {_shown(data)}{at}, and a JSON {kind} is expected"
    if type(schema.get("enum")) is list and data not in schema["enum"]:
        return f"is {_shown(data)}{at}, and one of {_shown(schema['enum'])} is expected"
    if kind != "object" or type(data) is not dict:
        return ""
    for name in schema.get("required", ()):
        if name not in data:
            return f"lacks {f'{path}.{name}'.lstrip('.')!r}"
    properties: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is False and (more := data.keys() - properties.keys()):
        return f"has {min(more)!r}{at}, which is not expected"
    whys = (
        misfit(each, data[name], definitions, f"{path}.{name}") for name, each in properties.items() if name in data
    )
    return next((why for why in whys if why), "")


def _is_wrong_bool(kind: str, data: object) -> bool:
    return isinstance(data, bool) and kind != "boolean"


def _shown(data: object) -> str:
    text = json.dumps(data)
    return text if len(text) <= 100 else f"{text[:100]}..."
