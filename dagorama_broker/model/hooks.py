"""Defines failure hooks: the functions from which an instance that fails gets a node."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import NamedTuple

from dagorama_broker.model.domain import Failure

#: The first counter of failure hooks in the origin of their instance, the number of these counters, and the flag of
#: their arguments: as in the contract with clients and workers, where `docs/reference/envelopes.md` describes them.
FIRST_HOOK, HOOKS, FLAG = 0xF000_0000, 0x1000_0000, 64


def hook_node(instance: bytes, number: int) -> bytes:
    """Return the ID of the node of the failure hook of an instance; each call of the hook has another number."""
    return instance[:12] + (FIRST_HOOK + number % HOOKS).to_bytes(4, "big")


def hook_arguments(signed: bytes, failure: bytes) -> bytes:
    """Return the arguments of the node of a failure hook: the signed ones, then a failure as JSON, and its length."""
    return bytes((signed[0], signed[1] | FLAG)) + signed[2:] + failure + len(failure).to_bytes(4, "big")


class Hook(NamedTuple):
    """A function and its arguments, signed for an instance, or for a schedule and its instances."""

    function: bytes  #: see `packed_function`
    arguments: bytes  #: an envelope

    def packed(self) -> list[str]:
        """Return it as JSON holds it."""
        return [self.function.decode(), b64encode(self.arguments).decode()]

    @classmethod
    def unpacked(cls, packed: list[str]) -> Hook:
        """Return the hook that `packed` has packed."""
        function, arguments = packed
        return cls(function.encode(), b64decode(arguments))


class HookRow(NamedTuple):
    """The failure hook of an instance, as it is stored. A later row of the instance replaces it."""

    instance: int
    function: bytes
    arguments: bytes
    #: 1: it was called, or somebody has cancelled the instance, so that failures do not count before a retry
    is_deaf: int = 0
    failure: bytes = b""  #: the first one since the last call, see `told`; empty: there is none

    @property
    def is_due(self) -> bool:
        """Whether it is called when the instance ends."""
        return bool(self.failure)

    def noting(self, failure: bytes) -> HookRow:
        """Return the hook with a failure that it will be called with."""
        return self._replace(failure=failure)

    def silenced(self) -> HookRow:
        """Return the hook once it was called, or its instance was cancelled."""
        return self._replace(failure=b"", is_deaf=1)

    def revived(self, failed: bool) -> HookRow:
        """Return the hook of an instance that goes on, because of a retry or of new nodes.

        `failed`: other nodes of it have failed, so that a failure that was noted before counts.
        """
        return self._replace(is_deaf=0, failure=self.failure if failed else b"")


def told(failure: Failure, node: bytes) -> bytes:
    """Return a failure as a hook gets it: texts, and the ID of the node that failed first."""
    return json.dumps({
        "node": node.hex(),
        "function": failure.function,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "attempts": failure.attempts,
    }).encode()  # fmt: skip
