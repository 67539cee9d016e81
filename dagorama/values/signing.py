"""Signatures of envelopes: each binds an envelope to the place that it was made for.

    arguments   role, instance, node, and the name and code of their function
    results     role, instance, node
    failures    role, instance, node: the pickled exception of a failed node
    schedules   role, schedule, and the name and code of the entry point: its arguments, each time that it starts
    hooks       role, instance or schedule, and the name and code of the failure hook: its arguments, each call

Rebindings and the keys of cached values are signed too, but they are not envelopes: see `rebind` and `cached_values`.

No signature binds the attempt. A large value or part is signed by its length and SHA-256, which the envelope contains.

The envelope contains the instance, which is signed with it. Node IDs are unique across instances, so a reader that
knows the node of a value does not depend on the broker for the instance; if it expects an instance, it compares them.

The rule: an envelope is opened here before anything in it is read, fetched or unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from dagorama.api.contract import (
    ADDED,
    ENVELOPE_VERSION,
    HOOK,
    INSTANCE_BYTES,
    KEY_ID_BYTES,
    NODE_ID_BYTES,
    SCHEDULED,
    SIGNED,
    WAIT_FUNCTION,
    entry_node,
    firing_instance,
    hooked_arguments,
    is_hook,
    scheduled_arguments,
)
from dagorama.errors import DagoramaError, TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.settings import signing_keys
from dagorama.values.cached_values import as_promise, open_found
from dagorama.values.envelope import FOUND_HEAD, MARKS, SIGNAL_HEAD, SIGNATURE_BYTES, flags, put_together, taken_apart
from dagorama.values.keys import SigningKey, load_keys

#: Roles; `cached_values` has two more.
ARGUMENTS, RESULT, FAILURE, REBINDING, SCHEDULE = b"A", b"R", b"F", b"C", b"S"
#: Of the arguments of a failure hook: of an instance, or of all instances of a schedule.
HOOK_OF_INSTANCE, HOOK_OF_SCHEDULE = b"H", b"T"

_ADVICE = "set DAGORAMA_SIGNING_KEYS to the same keys in the processes that write and read values"

_INSTANCE_AT = 2 + KEY_ID_BYTES
_MAC_AT = _INSTANCE_AT + INSTANCE_BYTES
_REST_AT = 2 + SIGNATURE_BYTES

#: The first bytes of a signed envelope by its other flags, and the reverse.
_SIGNED_HEADS = {marks: bytes((ENVELOPE_VERSION, marks | SIGNED)) for marks in range(MARKS) if not marks & SIGNED}
_PLAIN_HEADS = {head: bytes((ENVELOPE_VERSION, marks)) for marks, head in _SIGNED_HEADS.items()}
_UNSIGNED_HEADS = {SIGNAL_HEAD, FOUND_HEAD}  # of results that hold signed bytes, and are not signed as a whole


class Opened(NamedTuple):
    """An envelope that was signed for its place, without the signature; and its instance."""

    instance: bytes
    envelope: bytes


class Keyring:
    """The keys that a process holds: the first one signs, all verify."""

    __slots__ = ("_by_id", "_first")

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._by_id = {key.id: key for key in keys}
        self._first = next(iter(self._by_id.values()))

    def __repr__(self) -> str:
        return f"<keyring {', '.join(key.hex() for key in self.ids)}>"

    @property
    def ids(self) -> list[bytes]:
        """The IDs of the keys; the key that signs is the first."""
        return list(self._by_id)

    @property
    def signs_under(self) -> bytes:
        """The ID of the key that signs."""
        return self._first.id

    def sign(self, envelope: bytes, role: bytes, instance: bytes, node: bytes, function: bytes = b"") -> bytes:
        """Return the envelope with a signature that is valid only in this place; `function` is a function_digest."""
        key = self._first
        head = _SIGNED_HEADS[envelope[1]] + key.id + instance
        rest = envelope[2:]
        return b"".join((head, _mac(key, role + node + function + head, rest), rest))

    def open(self, envelope: bytes, role: bytes, node: bytes, what: str = "value") -> Opened:
        """Return an envelope that was signed for this place. `what` is a noun for errors.

        Raises UnverifiedValue if it is unsigned or its key is not held here, TamperedValue if it was signed for
        another place or changed, ValueNotReadable if it is not an envelope.
        """
        if role == RESULT and envelope[:2] in _UNSIGNED_HEADS:
            if envelope[:2] == SIGNAL_HEAD:
                return self._open_signal(envelope, node)
            found = open_found(self, envelope, node)
            return Opened(found.instance, as_promise(found))
        opened = self._opened(envelope, role + node, node, what)
        return Opened(envelope[_INSTANCE_AT:_MAC_AT], opened)

    def _open_signal(self, envelope: bytes, node: bytes) -> Opened:
        """Return the value of a node if its signed arguments say that it waits for a signal."""
        arguments, text = taken_apart(envelope)
        opened = self._opened(arguments, ARGUMENTS + node + WAIT_DIGEST, node, "arguments of a wait for a signal")
        return Opened(arguments[_INSTANCE_AT:_MAC_AT], put_together(opened, text))

    def open_arguments(self, envelope: bytes, instance: bytes, node: bytes, function: bytes) -> bytes:
        """Return the arguments of a node, without their signature; raise what `open` raises."""
        if len(envelope) > 1 and envelope[1] & ADDED:
            return self._open_added(envelope, instance, node, function)
        opened = self._opened(envelope, ARGUMENTS + node + function, node, "arguments")
        if envelope[_INSTANCE_AT:_MAC_AT] != instance:
            raise _elsewhere("arguments", node)
        return opened

    def _open_added(self, envelope: bytes, instance: bytes, node: bytes, function: bytes) -> bytes:
        """Return arguments to which the broker has added a time or a failure, without these and their signature."""
        if envelope[1] & HOOK:
            envelope, _ = hooked_arguments(envelope)
            return self.open_hook(envelope, instance, node, function)
        signed, time = scheduled_arguments(envelope)
        return self.open_scheduled(signed, instance, node, function, time)

    def sign_hook(self, envelope: bytes, role: bytes, owner: bytes, function: bytes) -> bytes:
        """Return arguments with a signature that is valid for the failure hook of an instance, or of a schedule's."""
        return self.sign(envelope, role, owner, b"", function)

    def open_hook(self, envelope: bytes, instance: bytes, node: bytes, function: bytes) -> bytes:
        """Return the arguments of the failure hook of an instance, without their signature.

        The node must have an ID that only failure hooks have. Raises what `open` raises.
        """
        time = None
        if envelope[1] & SCHEDULED:
            envelope, time = scheduled_arguments(envelope)
        role = HOOK_OF_INSTANCE if time is None else HOOK_OF_SCHEDULE
        opened = self._opened(envelope, role + function, node, "arguments")
        owner = envelope[_INSTANCE_AT:_MAC_AT]
        if instance != (owner if time is None else firing_instance(owner, time)):
            raise _elsewhere("arguments", node)
        if not is_hook(instance, node):
            raise TamperedValue(f"the arguments of node {node.hex()} are signed for a failure hook")
        return opened

    def sign_schedule(self, envelope: bytes, schedule: bytes, function: bytes) -> bytes:
        """Return arguments with a signature that is valid for all times of a schedule, given by its digest."""
        return self.sign(envelope, SCHEDULE, schedule, b"", function)

    def open_scheduled(self, envelope: bytes, instance: bytes, node: bytes, function: bytes, time: str) -> bytes:
        """Return the arguments of an entry point that a schedule has started at a time, without their signature.

        The node must be the first one of the instance of that schedule and time. Raises what `open` raises.
        """
        opened = self._opened(envelope, SCHEDULE + function, node, "arguments")
        if instance != firing_instance(envelope[_INSTANCE_AT:_MAC_AT], time):
            raise _elsewhere("arguments", node)
        if node != entry_node(instance):
            raise TamperedValue(f"the arguments of node {node.hex()} are signed for the entry point of a schedule")
        return opened

    def sign_statement(self, statement: bytes, role: bytes) -> bytes:
        """Return the signature of bytes that are not an envelope and name their place themselves."""
        return _mac(self._first, role + self._first.id, statement)

    def check_statement(self, statement: bytes, role: bytes, key_id: bytes, mac: bytes, what: str) -> None:
        """Verify a signature of `sign_statement`. `what` is a noun for errors.

        Raises UnverifiedValue if the key is not held here, TamperedValue if other bytes were signed with it.
        """
        key = self._by_id.get(key_id)
        if key is None:
            raise UnverifiedValue(f"{what} is signed with the key {key_id.hex()}, which is not held here")
        if not compare_digest(_mac(key, role + key_id, statement), mac):
            raise TamperedValue(f"{what} was changed: its signature with the key {key_id.hex()} is wrong")

    def _opened(self, envelope: bytes, place: bytes, node: bytes, what: str) -> bytes:
        plain, key = _PLAIN_HEADS.get(envelope[:2]), self._by_id.get(envelope[2:_INSTANCE_AT])
        if plain is None or key is None or len(envelope) < _REST_AT:
            raise self._refusal(envelope, what)
        rest = envelope[_REST_AT:]
        found = _mac(key, place + envelope[:_MAC_AT], rest)
        if not compare_digest(found, envelope[_MAC_AT:_REST_AT]) or len(node) != NODE_ID_BYTES:
            which = f"the {what} of node {node.hex()}"
            raise TamperedValue(f"the signature of {which} is wrong: it was changed, or signed for another place")
        return plain + rest

    def _refusal(self, envelope: bytes, what: str) -> DagoramaError:
        """Return the error for an envelope whose signature cannot be verified."""
        if not flags(envelope) & SIGNED:
            return UnverifiedValue(f"the signature of the {what} is missing: {_ADVICE}")
        if len(envelope) < _REST_AT:
            return ValueNotReadable(f"the signature of the {what} is cut short")
        key = envelope[2:_INSTANCE_AT].hex()
        return UnverifiedValue(f"the signing key {key} of the {what} is not held here: {_ADVICE}")


class SignedValues:
    """Received values by node ID; the signature of each is verified when the value is needed."""

    def __init__(self, ring: Keyring, received: Mapping[bytes, bytes]) -> None:
        self._ring = ring
        self._received = received
        self._opened: dict[bytes, Opened] = {}

    def get(self, node: bytes, /) -> bytes | None:
        """Return the opened envelope of a node's value, None if there is none; raise what `Keyring.open` raises."""
        found = self._opened.get(node)
        if found is None:
            envelope = self._received.get(node)
            if envelope is None:
                return None
            if envelope[:2] == FOUND_HEAD:
                found = self._found(envelope, node)
            found = self._opened[node] = found or self._ring.open(envelope, RESULT, node)
        return found.envelope

    def _found(self, envelope: bytes, node: bytes) -> Opened | None:
        """Return the value of a node that was found in the cache; None if that value was not received."""
        found = open_found(self._ring, envelope, node)
        if self._received.get(found.other, FOUND_HEAD)[:2] == FOUND_HEAD:  # it may lead back here
            return None
        value = self.get_of(found.other, found.other_instance)
        return None if value is None else Opened(found.instance, value)

    def get_of(self, node: bytes, instance: bytes) -> bytes | None:
        """Return what `get` returns; raise TamperedValue if the value belongs to another instance."""
        envelope = self.get(node)
        if envelope is not None and self._opened[node].instance != instance:
            raise _elsewhere("value", node)
        return envelope


def code_text(code_hash: str, class_code: str) -> str:
    """Return the name of a function's code in signatures and in the broker's records of rebound nodes."""
    return f"{code_hash} {class_code}" if class_code else code_hash


@lru_cache(maxsize=4096)
def function_digest(name: str, code: str) -> bytes:
    """Return the digest of a function and its `code_text` for the signature of its arguments."""
    encoded = name.encode()
    return sha256(len(encoded).to_bytes(4, "big") + encoded + code.encode()).digest()


#: Of all functions that wait for signals, instead of their `function_digest`: their arguments name the signal.
WAIT_DIGEST = function_digest(WAIT_FUNCTION, "")


def _mac(key: SigningKey, bound: bytes, rest: bytes) -> bytes:
    """Return the HMAC-SHA256. The role in `bound` determines the lengths of its parts."""
    inner = key.inner.copy()
    inner.update(bound)
    inner.update(rest)
    outer = key.outer.copy()
    outer.update(inner.digest())
    return outer.digest()


def _elsewhere(what: str, node: bytes) -> TamperedValue:
    return TamperedValue(f"the signature of the {what} of node {node.hex()} is for another instance")


# --- the keys of this process --------------------------------------------------------------------------

_current: tuple[tuple[str, str], Keyring] | None = None


def keyring() -> Keyring:
    """Return the keys that the environment names now, reading files once; raise SettingsError."""
    global _current
    named = signing_keys()
    if _current is None or _current[0] != named:
        _current = named, Keyring(load_keys())
    return _current[1]
