"""Checks single fields of messages, and bounds texts. Raises InvalidArgument if a field is not as the protocol says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from google.protobuf.message import Message

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import (
    CACHE_KEY_BYTES,
    CACHE_SIGNATURE_BYTES,
    ENVELOPE_VERSION,
    LATEST_START,
    MESSAGE_TARGET,
    SIGNED,
)
from dagorama_broker.errors import InvalidArgument

M = TypeVar("M", bound=Message)

LONGEST_NAME = 4096
#: Characters of a reason or of a failure in one line, for people.
LONGEST_REASON = 1_000
LONGEST_KEY_ID = 64
#: Characters of a traceparent, a space and a tracestate.
LONGEST_TRACE = 55 + 1 + 512
#: Queues and taints that one worker may name, and their characters together.
MOST_NAMES, LONGEST_NAMES = 500, 16 << 10


def id_bytes(id: bytes, what: str) -> bytes:
    """Return a 16-byte ID as it came. Raises InvalidArgument."""
    if len(id) != 16:
        raise InvalidArgument(f"the ID of {what} has {len(id)} bytes; 16 are expected")
    return id


def sha256_bytes(name: bytes) -> bytes:
    """Return the name of a large value as it came. Raises InvalidArgument."""
    if len(name) != 32:
        raise InvalidArgument(f"the name of a large value has {len(name)} bytes; a SHA-256 has 32")
    return name


def bounded(text: str, most: int) -> str:
    """Return a text without its middle if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    left_out = f" ... {len(text) - most} characters are left out ... "
    return text[: most // 2] + left_out + text[-(most // 2) :]


def fitting(messages: Sequence[M]) -> list[M]:
    """Return the first of these that fit into one message, at least one."""
    sizes = accumulate(each.ByteSize() for each in messages)
    return [each for each, size in zip(messages, sizes, strict=True) if size <= MESSAGE_TARGET or each is messages[0]]


def check_name(name: str, what: str, least: int = 0) -> str:
    """Return a name as it came. Raises InvalidArgument if it is too long, or missing, or no store could hold it."""
    if not least <= len(name) <= LONGEST_NAME:
        raise InvalidArgument(f"{what} has {len(name)} characters; {least} to {LONGEST_NAME} are allowed")
    return check_text(name, what)


def check_text(text: str, what: str) -> str:
    """Return a text as it came. Raises InvalidArgument if it has a NUL, which PostgreSQL cannot store."""
    if "\0" in text:
        raise InvalidArgument(f"{what} has a NUL character, which is not allowed")
    return text


def check_names(names: Sequence[str]) -> None:
    """Raise InvalidArgument if a worker's queues and tolerations are too many or too long."""
    if len(names) > MOST_NAMES or sum(map(len, names)) > LONGEST_NAMES:
        raise InvalidArgument(
            f"a worker names {len(names)} queues and taints of {sum(map(len, names)):,} characters together;"
            f" {MOST_NAMES:,} of {LONGEST_NAMES:,} characters are allowed"
        )
    for name in names:
        check_name(name, "the name of a queue or taint")


def check_trace(trace: str) -> str:
    """Return a trace context as it came. Raises InvalidArgument if it is too long for one, or is not ASCII."""
    if len(trace) > LONGEST_TRACE or not trace.isascii():
        raise InvalidArgument(f"a trace context has at most {LONGEST_TRACE} ASCII characters")
    return check_text(trace, "a trace context")


def check_plain(arguments: bytes, what: str, largest: int, may_have: int = 0) -> bytes:
    """Return signed arguments without promises and large values as they came; `may_have`: a flag that is allowed.

    Raises InvalidArgument for other envelopes, and for more than `largest` bytes, a multiple of 1,024.
    """
    heads = bytes((ENVELOPE_VERSION, SIGNED)), bytes((ENVELOPE_VERSION, SIGNED | may_have))
    if arguments[:2] not in heads or len(arguments) > largest:
        raise InvalidArgument(
            f"the arguments of {what} are an envelope of at most {largest >> 10} KiB that is signed, and has neither"
            f" promises nor large values; these are {len(arguments):,} bytes"
        )
    return arguments


def check_key_id(id: bytes, whose: str) -> None:
    """Raise InvalidArgument if this is too long for the ID of a signing key."""
    if len(id) > LONGEST_KEY_ID:
        raise InvalidArgument(f"{whose}: the ID of a signing key has at most {LONGEST_KEY_ID} bytes")


def check_worker_keys(ids: Sequence[bytes]) -> None:
    """Raise InvalidArgument if the IDs of a worker's signing keys are too many or too long."""
    if len(ids) > MOST_NAMES:
        raise InvalidArgument(f"a worker names {len(ids)} signing keys; {MOST_NAMES:,} are allowed")
    for id in ids:
        check_key_id(id, "a worker")


def check_places(places: Sequence[int], nodes: pb.Nodes, what: str) -> None:
    """Raise InvalidArgument unless these are ascending indexes of nodes of the block, which have `what`."""
    if not all(map(int.__lt__, places, places[1:])) or (places and places[-1] >= len(nodes.function)):
        raise InvalidArgument(f"the {what} of a block of nodes do not fit its nodes")


def check_delays(nodes: pb.Nodes) -> None:
    """Raise InvalidArgument if the delays of a block of nodes do not fit its nodes, or are no times."""
    delayed = nodes.delayed
    if len(nodes.delay) != len(delayed) or len(nodes.not_before) != len(delayed):
        raise InvalidArgument("the columns of delayed nodes have different lengths")
    check_places(delayed, nodes, "delays")
    for seconds in (*nodes.delay, *nodes.not_before):
        if not 0.0 <= seconds <= LATEST_START:
            raise InvalidArgument(f"the delay of a node is {seconds}: it must be from 0 to {LATEST_START:.0f} seconds")


def check_cache_keys(nodes: pb.Nodes) -> None:
    """Raise InvalidArgument if the cache keys of a block of nodes do not fit its nodes, or have another length."""
    if not len(nodes.cache_key) == len(nodes.cache_announcement) == len(nodes.cached):
        raise InvalidArgument("the columns of nodes with cache keys have different lengths")
    check_places(nodes.cached, nodes, "cache keys")
    for key in nodes.cache_key:
        check_cache_key(key)
    for signature in nodes.cache_announcement:
        if len(signature) != CACHE_SIGNATURE_BYTES:
            raise InvalidArgument(
                f"the signature of a cache key has {CACHE_SIGNATURE_BYTES} bytes, not {len(signature)}"
            )


def check_cache_key(key: bytes) -> bytes:
    """Return a cache key. Raises InvalidArgument if it has another length."""
    if len(key) != CACHE_KEY_BYTES:
        raise InvalidArgument(f"a cache key has {CACHE_KEY_BYTES} bytes, not {len(key)}")
    return key


def check_references(references: Sequence[int], counts: Sequence[int], foreign: int, end: int, what: str) -> None:
    """Raise InvalidArgument if references do not fit their counts, or name what the message does not have."""
    if sum(counts) != len(references):
        raise InvalidArgument(f"the {what} references do not add up to their counts")
    if references and (min(references) < -foreign or max(references) >= end):
        raise InvalidArgument(f"a {what} reference names nothing that the message has")
