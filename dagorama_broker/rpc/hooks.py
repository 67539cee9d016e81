"""Reads failure hooks from messages."""

from __future__ import annotations

from functools import lru_cache

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import ENVELOPE_VERSION, LARGEST_HOOK, SIGNED
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.domain import Function
from dagorama_broker.model.hooks import Hook
from dagorama_broker.model.schedules import packed_function
from dagorama_broker.rpc.functions import function_of

#: The first bytes of an envelope that is signed, and has neither promises nor large values.
SIGNED_PLAIN = bytes((ENVELOPE_VERSION, SIGNED))


def hook_of(message: pb.FailureHook) -> Hook:
    """Return a failure hook. Raises InvalidArgument."""
    arguments = message.arguments
    if arguments[:2] != SIGNED_PLAIN or len(arguments) > LARGEST_HOOK:
        raise InvalidArgument(
            f"the arguments of a failure hook are an envelope of at most {LARGEST_HOOK >> 10} KiB that is signed, and"
            f" has neither promises nor large values; these are {len(arguments):,} bytes"
        )
    return Hook(_packed(function_of(message.function)), arguments)


@lru_cache(maxsize=128)
def _packed(function: Function) -> bytes:
    """Return a packed function, the same object for each instance that has this hook."""
    return packed_function(function)
