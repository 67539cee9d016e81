"""The arguments and the value of a node as lines of text, for `dagorama show INSTANCE NODE`.

The rule: nothing is unpickled, or shown as verified, before its signature was verified with a local key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from reprlib import Repr
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.api.contract import HOOK
from dagorama.errors import DagoramaError, SettingsError, UnverifiedValue
from dagorama.values.json_shown import shown_arguments, shown_result

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: The text of each argument is truncated to this many characters, and each container in it to MAX_ITEMS items.
MAX_ARGUMENT_CHARACTERS = 1_000
MAX_ITEMS = 20


class _Promised:
    """Placeholder for the value of a source, which is not fetched."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<value of node {self._name}>"


def argument_lines(
    broker: Connection, instance: UUID, details: broker_pb2.NodeDetails, names: Mapping[bytes, str]
) -> list[str]:
    """Return a line for each argument, or one line that says why the arguments cannot be shown."""

    from dagorama.values.failures import told_failure

    def lines(envelope: bytes) -> list[str]:
        found = shown_arguments(envelope, lambda id: _name(names, id), MAX_ARGUMENT_CHARACTERS)
        if found is not None:
            return [f"{each.name}={each.text}" if each.name else each.text for each in found]
        args, kwargs = _unpickled(broker, envelope, names)
        if details.arguments[1] & HOOK:
            args = (told_failure(details.arguments, instance.bytes), *args)
        return [*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())]

    return _verified(lambda: _opened_arguments(instance, details), details.arguments, lines)


def value_lines(details: broker_pb2.NodeDetails, names: Mapping[bytes, str]) -> list[str]:
    """Return a line for a value that is JSON; none for one that is a pickle, which is not unpickled here."""

    def lines(envelope: bytes) -> list[str]:
        found = shown_result(envelope, lambda id: _name(names, id), MAX_ARGUMENT_CHARACTERS)
        return [] if found is None else [found.text]

    return _verified(lambda: _opened_value(details), details.value, lines) if lines(details.value) else []


def _verified(opened: Callable[[], bytes], signed: bytes, lines: Callable[[bytes], list[str]]) -> list[str]:
    """Return the lines of an opened envelope; without its key, the JSON in the signed one after a line that says so."""
    try:
        found = lines(opened())
    except SettingsError:
        raise
    except UnverifiedValue as error:
        if shown_result(signed, bytes.hex) is None:
            return [f"cannot be shown: {error}"]
        found = [f"not verified: {error}", *lines(signed)]
    except DagoramaError as error:
        return [f"cannot be shown: {error}"]
    return found


def _opened_arguments(instance: UUID, details: broker_pb2.NodeDetails) -> bytes:
    """Return the verified arguments. Raises the errors of Keyring.open_arguments."""
    from dagorama.values.signing import WAIT_DIGEST, code_text, function_digest, keyring

    function = details.info.function
    if details.info.signal.name:
        return keyring().open_arguments(details.arguments, instance.bytes, details.info.node, WAIT_DIGEST)
    digest = function_digest(function.name, details.made_with or code_text(function.hash, function.class_code))
    return keyring().open_arguments(details.arguments, instance.bytes, details.info.node, digest)


def _opened_value(details: broker_pb2.NodeDetails) -> bytes:
    from dagorama.values.signing import RESULT, keyring

    return keyring().open(details.value, RESULT, details.info.node).envelope


def _unpickled(
    broker: Connection, envelope: bytes, names: Mapping[bytes, str]
) -> tuple[Sequence[object], Mapping[str, object]]:
    """Unpickle verified arguments, with modules of the current folder too. Raises ValueNotReadable."""
    from dagorama.cli.loading import import_path_of_workers
    from dagorama.client.large_values import BrokerValues
    from dagorama.values.codec import decode_call
    from dagorama.values.envelope import references

    import_path_of_workers()
    fill = [_Promised(_name(names, id)) for id in references(envelope)]
    return decode_call(envelope, fill, get_large=BrokerValues(broker).get)


def _name(names: Mapping[bytes, str], id: bytes) -> str:
    return names.get(id) or (f"{UUID(bytes=id)}" if len(id) == 16 else id.hex())


def _shown(value: object) -> str:
    """Return the repr of a value, truncated, or a note if its repr() raises an exception."""
    bounded = Repr()
    bounded.maxstring = bounded.maxother = bounded.maxlong = MAX_ARGUMENT_CHARACTERS
    bounded.maxlist = bounded.maxtuple = bounded.maxdict = bounded.maxset = bounded.maxfrozenset = MAX_ITEMS
    try:
        text = bounded.repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}, repr() raised {type(error).__name__}>"
    return text if len(text) <= MAX_ARGUMENT_CHARACTERS else f"{text[:MAX_ARGUMENT_CHARACTERS]} ..."
