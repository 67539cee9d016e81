"""Constants and IDs of the protocol that no message can define; the client library and the broker agree on them.

docs/reference/protocol.md and docs/reference/envelopes.md describe them. This file imports nothing of protobuf or gRPC.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

# --- messages ---------------------------------------------------------------------------------------------

#: Largest message in bytes that a client or worker sends and accepts, and the least that a broker accepts.
MESSAGE_LIMIT = 4 << 20
#: Bytes after which a sender closes a message and begins the next one.
MESSAGE_TARGET = 1 << 20
#: Bytes of a large value in one message.
CHUNK = 1 << 20
#: Trailing metadata of a temporary refusal: the milliseconds after which to try again.
RETRY_AFTER = "retry-after-ms"
#: Trailing metadata of a refusal because the object store of large values does not answer the broker.
VALUES_AWAY = "values-away"

# --- IDs --------------------------------------------------------------------------------------------------

#: Bytes of the ID of a node, and of the origin with which it begins; a counter follows, big-endian.
NODE_ID_BYTES, ORIGIN_BYTES = 16, 12

# --- workers ----------------------------------------------------------------------------------------------

#: Slots of a worker: child processes, each of which runs one node at a time.
MOST_SLOTS = 4096

# --- cached values ----------------------------------------------------------------------------------------

#: Bytes of a cache key, and of a signature that binds it to a node: the ID of the signing key and an HMAC.
CACHE_KEY_BYTES, CACHE_SIGNATURE_BYTES = 32, 40
#: Bytes of the ID of a signing key, with which such a signature begins.
KEY_ID_BYTES = 8
#: GrantBody.cache of a node that is to run, and of one that gets the first value of `found`.
TO_RUN, FIRST_FOUND = 1, 2

# --- delays -----------------------------------------------------------------------------------------------

#: Seconds from 1970 to the year 9999, in which no time zone gets past what Python can show.
LATEST_START = 253_370_764_800.0

# --- instances --------------------------------------------------------------------------------------------

#: Characters of the ID that a user gives to an instance.
LONGEST_NAME = 256
#: Labels of an instance, and the characters of a label and of its value.
MOST_LABELS, LONGEST_LABEL, LONGEST_LABEL_VALUE = 16, 64, 256
#: Characters of the key with which an instance takes turns with others.
LONGEST_FAIR = 256
#: Priorities of instances and of functions; higher goes first.
LOWEST_PRIORITY, HIGHEST_PRIORITY = -128, 127

# --- signals ----------------------------------------------------------------------------------------------

#: The names of signals, as a regular expression, and the characters of a key.
SIGNAL_NAME, LONGEST_SIGNAL_KEY = r"[\w.-]{1,100}", 256
#: Bytes of the JSON of a signal, of the schema of its type, and of the signed arguments of a node that waits for one.
LONGEST_SIGNAL, LONGEST_SCHEMA, LONGEST_WAIT = 64 << 10, 16 << 10, 128 << 10
#: The function of nodes that wait for a signal is this, followed by the name of the signal and a closing parenthesis.
WAIT_FUNCTION = "dagorama:wait_for("

# --- envelopes --------------------------------------------------------------------------------------------

#: First byte of an envelope.
ENVELOPE_VERSION = 1
#: Flags in the second byte: a signature follows, the body is stored separately, a table of promises, one of parts, and
#: the body is JSON, never a pickle. Of arguments: a schedule starts an instance with them, whose time is at the end,
#: after the signed bytes; and the node runs even if its value is cached.
SIGNED, LARGE, REFS, PARTS, JSON, SCHEDULED, REFRESH = 1, 2, 4, 8, 16, 32, 128
#: The flags of envelopes that name large values.
NAMES_LARGE = LARGE | PARTS
#: The only flag of the value of a node that has waited for a signal: its signed arguments, and JSON from the sender.
SIGNAL = 32
#: The only flag of the value of a node that the broker has found in the cache: it names the node that has the value,
#: with the signatures of the caller and of the process that computed it.
FOUND = 64
#: `struct` layouts of an entry in the table of parts (length, SHA-256, kind), and of the number of entries after it.
PART_LAYOUT, COUNT_LAYOUT = "<Q32sB", "<I"
#: Name of the type of a cancelled node's failure.
CANCELLED = "dagorama.errors.NodeCancelled"

# --- tokens -----------------------------------------------------------------------------------------------


class Role(StrEnum):
    """The permissions of the holder of a token."""

    CLIENT = "client"
    WORKER = "worker"
    READER = "reader"
    SIGNALLER = "signaller"
    ADMIN = "admin"


#: First characters of a token, by which people and secret scanners recognize one.
TOKEN_PREFIX = "dgt_"

# --- what schedules start ---------------------------------------------------------------------------------

# The ID of an instance that a schedule starts is computed from the schedule and the time. So a time never makes two
# instances, and a broker cannot pass the signed arguments of a schedule off as the arguments of another node.

#: Bytes of an instance's ID.
INSTANCE_BYTES = 16
#: Characters of the ID of a schedule: with a time after it, it is the ID of an instance.
LONGEST_SCHEDULE = 200
#: Bytes of the arguments of a schedule, which has no large values.
LARGEST_SCHEDULED = 64 << 10
#: The label that instances get which a schedule starts; its value is the ID of the schedule.
SCHEDULE_LABEL = "schedule"


def schedule_digest(definition: str, name: str) -> bytes:
    """Return 16 bytes that stand for a schedule: `definition` is the name of its class, `name` the schedule's ID."""
    return sha256(f"schedule {len(definition)} {definition}{name}".encode()).digest()[:INSTANCE_BYTES]


def firing_instance(schedule: bytes, time: str) -> bytes:
    """Return the ID of the instance that a schedule, by its digest, starts at a time such as 2026-11-25T07:00+01:00."""
    return sha256(b"firing " + schedule + time.encode()).digest()[:INSTANCE_BYTES]


def entry_node(instance: bytes) -> bytes:
    """Return the ID of the only node that a schedule makes in an instance."""
    return instance[:ORIGIN_BYTES] + bytes(4)


def firing_arguments(signed: bytes, time: str) -> bytes:
    """Return the arguments of an entry point that a schedule starts at a time: the signed ones, then the time."""
    encoded = time.encode()
    return bytes((signed[0], signed[1] | SCHEDULED)) + signed[2:] + encoded + bytes((len(encoded),))


def scheduled_arguments(arguments: bytes) -> tuple[bytes, str]:
    """Return what `firing_arguments` was given. Verify the signature before the time is used."""
    end = max(2, len(arguments) - 1 - arguments[-1])
    signed = bytes((arguments[0], arguments[1] & ~SCHEDULED)) + arguments[2:end]
    return signed, arguments[end:-1].decode("ascii", "replace")


def scheduled_time(arguments: bytes) -> str:
    """Return the time at which a schedule has started an entry point with these arguments; empty: none has."""
    if arguments[1] & HOOK:
        arguments, _ = hooked_arguments(arguments)
    return scheduled_arguments(arguments)[1] if arguments[1] & SCHEDULED else ""


# --- failure hooks ----------------------------------------------------------------------------------------

# The node of a failure hook is made by the broker, of arguments that were signed when the instance was started. Its ID
# says what it is, so that those arguments fit no other node, and no client or worker can make a node with such an ID.

#: Another flag of arguments: the broker has added the failure at the end, after the signed bytes.
HOOK = 64
#: The flags of arguments to which the broker has added something: it makes nodes of them.
ADDED = SCHEDULED | HOOK
#: The first counter of failure hooks in the origin of the instance; other nodes have smaller counters.
FIRST_HOOK = 0xF000_0000
#: Bytes of the signed arguments of a failure hook, which have no large values.
LARGEST_HOOK = 64 << 10


def is_hook(instance: bytes, node: bytes) -> bool:
    """Return whether a node is the failure hook of its instance."""
    return node[ORIGIN_BYTES:] >= _FIRST_HOOK and node[:ORIGIN_BYTES] == instance[:ORIGIN_BYTES]


_FIRST_HOOK = FIRST_HOOK.to_bytes(4, "big")


def hooked_arguments(arguments: bytes) -> tuple[bytes, bytes]:
    """Return the signed arguments of a failure hook, and the failure, as JSON, that a broker has put after them.

    Verify the signature before the failure is used.
    """
    end = max(2, len(arguments) - 4 - int.from_bytes(arguments[-4:], "big"))
    return bytes((arguments[0], arguments[1] & ~HOOK)) + arguments[2:end], arguments[end:-4]
