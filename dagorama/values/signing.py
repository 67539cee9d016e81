"""Signatures of envelopes: what an envelope is bound to when it is made, and that it is so when it is read.

    arguments   role, instance, node, and the name and code of the function that they are for
    results     role, instance, node
    failures    role, instance, node: the pickled exception of a node that failed

Adoptions are signed too, and are no envelopes: see `adoption`.

None of them binds the attempt. A large value, or a large part of one, is signed by its length and SHA-256,
which its envelope holds.

The instance stands in the envelope and is signed with it: node ids are unique among all instances, so whoever knows
which node a value has to be of needs nobody's word for the instance, and compares it where it knows that too.

The rule: an envelope is opened here before anything in it is read, fetched or unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from dagorama.errors import DagoramaError, TamperedValue, UncheckableValue, ValueNotReadable
from dagorama.settings import signing_keys
from dagorama.values.envelope import MARKS, SIGNATURE_BYTES, SIGNED, VERSION, flags
from dagorama.values.keys import ID_BYTES, SigningKey, load_keys

ARGUMENTS, RESULT, FAILURE, ADOPTION = b"A", b"R", b"F", b"C"

_ADVICE = "set DAGORAMA_SIGNING_KEYS to the same keys where values are made and where they are read"

NODE_BYTES = INSTANCE_BYTES = 16
_INSTANCE_AT = 2 + ID_BYTES
_MAC_AT = _INSTANCE_AT + INSTANCE_BYTES
_REST_AT = 2 + SIGNATURE_BYTES

#: what a signed envelope begins with, by the flags it has besides; and the other way round
_SIGNED_HEADS = {marks: bytes((VERSION, marks | SIGNED)) for marks in range(MARKS) if not marks & SIGNED}
_PLAIN_HEADS = {head: bytes((VERSION, marks)) for marks, head in _SIGNED_HEADS.items()}


class Opened(NamedTuple):
    """An envelope that was signed for its place, without its signature; and the instance that it is of."""

    instance: bytes
    envelope: bytes


class Keyring:
    """The keys that a process holds: the first signs, all check."""

    __slots__ = ("_by_id", "_first")

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._by_id = {key.id: key for key in keys}
        self._first = next(iter(self._by_id.values()))

    def __repr__(self) -> str:
        return f"<keyring {', '.join(id.hex() for id in self.ids)}>"

    @property
    def ids(self) -> list[bytes]:
        """Of its keys, that which signs first."""
        return list(self._by_id)

    @property
    def signs_under(self) -> bytes:
        """The id of the key that signs."""
        return self._first.id

    def sign(self, envelope: bytes, role: bytes, instance: bytes, node: bytes, function: bytes = b"") -> bytes:
        """The envelope with a signature that is good in this place alone; `function` is its function_digest."""
        key = self._first
        head = _SIGNED_HEADS[envelope[1]] + key.id + instance
        rest = envelope[2:]
        return b"".join((head, _mac(key, role + node + function + head, rest), rest))

    def open(self, envelope: bytes, role: bytes, node: bytes, what: str = "value") -> Opened:
        """What was signed for this place. `what` is a noun for errors.

        Raises UncheckableValue where it is unsigned or under a key that is not held, TamperedValue where it was
        signed for another place or changed, ValueNotReadable for what is no envelope.
        """
        opened = self._opened(envelope, role + node, node, what)
        return Opened(envelope[_INSTANCE_AT:_MAC_AT], opened)

    def open_arguments(self, envelope: bytes, instance: bytes, node: bytes, function: bytes) -> bytes:
        """The arguments of a node, without their signature; raises the same."""
        opened = self._opened(envelope, ARGUMENTS + node + function, node, "arguments")
        _check_instance(envelope[_INSTANCE_AT:_MAC_AT], instance, "arguments", node)
        return opened

    def sign_statement(self, statement: bytes, role: bytes) -> bytes:
        """Return the signature of bytes that are no envelope and say themselves what they are bound to."""
        return _mac(self._first, role + self._first.id, statement)

    def check_statement(self, statement: bytes, role: bytes, key_id: bytes, mac: bytes, what: str) -> None:
        """Check such a signature. `what` is a noun for errors.

        Raises UncheckableValue if the key is not held here, TamperedValue if this is not what was signed under it.
        """
        key = self._by_id.get(key_id)
        if key is None:
            raise UncheckableValue(f"{what} is signed under the key {key_id.hex()}, which is not held here")
        if not compare_digest(_mac(key, role + key_id, statement), mac):
            raise TamperedValue(f"{what} is not what was signed under the key {key_id.hex()}")

    def _opened(self, envelope: bytes, place: bytes, node: bytes, what: str) -> bytes:
        plain, key = _PLAIN_HEADS.get(envelope[:2]), self._by_id.get(envelope[2:_INSTANCE_AT])
        if plain is None or key is None or len(envelope) < _REST_AT:
            raise self._refusal(envelope, what)
        rest = envelope[_REST_AT:]
        found = _mac(key, place + envelope[:_MAC_AT], rest)
        if not compare_digest(found, envelope[_MAC_AT:_REST_AT]) or len(node) != NODE_BYTES:
            raise TamperedValue(f"the {what} of node {node.hex()}: this is not what was signed for it")
        return plain + rest

    def _refusal(self, envelope: bytes, what: str) -> DagoramaError:
        """Why the signature of an envelope cannot be checked."""
        if not flags(envelope) & SIGNED:
            return UncheckableValue(f"the {what} came unsigned: {_ADVICE}")
        if len(envelope) < _REST_AT:
            return ValueNotReadable(f"the signature of the {what} is cut short")
        id = envelope[2:_INSTANCE_AT].hex()
        return UncheckableValue(f"the {what} came under the signing key {id}, which is not held here: {_ADVICE}")


class SignedValues:
    """Values as they came, by the id of the node that they are said to be of; each is checked when it is needed."""

    def __init__(self, ring: Keyring, received: Mapping[bytes, bytes]) -> None:
        self._ring = ring
        self._received = received
        self._opened: dict[bytes, Opened] = {}

    def get(self, node: bytes, /) -> bytes | None:
        """The envelope of that node's value, opened; None where it has not come. Raises what Keyring.open does."""
        found = self._opened.get(node)
        if found is None:
            envelope = self._received.get(node)
            if envelope is None:
                return None
            found = self._opened[node] = self._ring.open(envelope, RESULT, node)
        return found.envelope

    def get_of(self, node: bytes, instance: bytes) -> bytes | None:
        """The same for a node that has to be of this instance."""
        envelope = self.get(node)
        if envelope is not None:
            _check_instance(self._opened[node].instance, instance, "value", node)
        return envelope


def code_text(hash: str, class_code: str) -> str:
    """Return what a function's code is called in signatures, and in the broker's records of adopted nodes."""
    return f"{hash} {class_code}" if class_code else hash


@lru_cache(maxsize=4096)
def function_digest(name: str, code: str) -> bytes:
    """Return what stands for a function and its `code_text` in the signature of its arguments."""
    encoded = name.encode()
    return sha256(len(encoded).to_bytes(4, "big") + encoded + code.encode()).digest()


def _mac(key: SigningKey, bound: bytes, rest: bytes) -> bytes:
    """HMAC-SHA256. Each part of `bound` has a length of its own that its role decides."""
    inner = key.inner.copy()
    inner.update(bound)
    inner.update(rest)
    outer = key.outer.copy()
    outer.update(inner.digest())
    return outer.digest()


def _check_instance(signed: bytes, wanted: bytes, what: str, node: bytes) -> None:
    if signed != wanted:
        raise TamperedValue(f"the {what} of node {node.hex()} is of another instance")


# --- this process's own -----------------------------------------------------------------------------

_current: tuple[tuple[str, str], Keyring] | None = None


def keyring() -> Keyring:
    """The keys that the environment names now; files are read once. Raises SettingsError."""
    global _current
    named = signing_keys()
    if _current is None or _current[0] != named:
        _current = named, Keyring(load_keys())
    return _current[1]
