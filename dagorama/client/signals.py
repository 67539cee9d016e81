"""Send signals: values for nodes that wait for them.

The rule: a signal is JSON, never a pickle, and carries no type: the node that waits for it knows its type.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dagorama.api.broker_pb2 import SendSignalRequest
from dagorama.api.contract import LONGEST_SIGNAL_KEY
from dagorama.client.connection import connection
from dagorama.client.waiter import check_instance, refuse_held_back
from dagorama.errors import TypeMismatch
from dagorama.models.promise import InstanceRef
from dagorama.models.texts import check_characters, check_content
from dagorama.values.typed_json import json_type, read_json, to_bytes

_PLAIN = (str, int, float, bool, type(None))


def send(
    instance: InstanceRef | UUID | str, name: str, value: object, *, key: str | None = None, type_: Any = None
) -> bool:
    """Send a value to the node of an instance that waits for the signal `name`; return when that is durable.

    If no node waits for it yet, the broker keeps it, up to 1,000 for each name. `instance` may be its ID. `value` is
    written as JSON: as `type_` if that is given, else plain values and containers as they are, and other objects, such
    as dataclasses and pydantic models, by their class.

    A call that is repeated after a broken connection may send the signal twice. With a `key`, a text of at most 256
    characters, it is sent once: a call with the same key and value changes nothing and returns False. Otherwise it
    returns True.

    Raises TypeMismatch for a value without a JSON form, NotFound if there is no such instance, BrokerOverloaded if too
    many are kept, and RequestRejected if the value plainly does not fit or is too large, if the key was used for
    another value, or if no node waits for the signal any longer because the instance or the node has ended.
    """
    id = _id_of(instance)
    refuse_held_back("send()", id)
    if not isinstance(name, str):
        raise TypeError(f"the name of a signal is {name!r}: it must be a str")
    request = SendSignalRequest(
        instance=id, name=check_characters(name, "name"), value=encoded(name, value, type_), key=_checked_key(key)
    )
    return not connection().send_signal(request).known


def encoded(name: str, value: object, annotation: Any = None) -> bytes:
    """Return the value of a signal as JSON. Raises TypeMismatch."""
    what = f"the signal {name!r}"
    if annotation is not None:
        return json_type(annotation).encode(value, what)
    return to_bytes(value, what) if _is_plain(value) else json_type(type(value)).encode(value, what)


def _is_plain(value: object) -> bool:
    """Return whether a value is made of what JSON has."""
    stack = [value]
    while stack:
        each = stack.pop()
        if type(each) is list:
            stack += each
        elif type(each) is dict and all(type(key) is str for key in each):
            stack += each.values()
        elif type(each) not in _PLAIN:
            return False
    return True


def checked_json(name: str, text: str) -> bytes:
    """Return a text that must be JSON in UTF-8. Raises TypeMismatch."""
    try:
        return to_bytes(read_json(text), f"the signal {name!r}")
    except (ValueError, RecursionError) as error:
        raise TypeMismatch(f"the signal {name!r} is not JSON ({error}); text needs quotation marks") from None


def _id_of(instance: InstanceRef | UUID | str) -> bytes:
    if isinstance(instance, UUID):
        return instance.bytes
    if isinstance(instance, str):
        try:
            return UUID(instance).bytes
        except ValueError:
            raise ValueError(
                f"{instance!r} is not the ID of an instance; MyTask.attach(id={instance!r}) finds one by its user's ID"
            ) from None
    check_instance("send()", instance)
    return instance.instance_id.bytes


def _checked_key(key: str | None) -> str:
    if key is None:
        return ""
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}: it must be a str")
    return check_content(key, "key", 1, LONGEST_SIGNAL_KEY)
