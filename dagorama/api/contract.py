"""Constants of the protocol that no message definition can hold; the client library and the broker agree on them.

docs/reference/protocol.md and docs/reference/envelopes.md describe them. This file imports nothing of protobuf or gRPC.
"""

from __future__ import annotations

from enum import StrEnum

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

# --- ids --------------------------------------------------------------------------------------------------

#: Bytes of the origin in the id of a node; a counter of 4 bytes follows, big-endian.
ORIGIN_BYTES = 12

# --- delays -----------------------------------------------------------------------------------------------

#: Seconds from 1970 to the year 9999, in which no time zone gets past what Python can show.
LATEST_START = 253_370_764_800.0

# --- instances --------------------------------------------------------------------------------------------

#: Characters of the id that a user gives to an instance.
LONGEST_NAME = 256
#: Labels of an instance, and the characters of a label and of its value.
MOST_LABELS, LONGEST_LABEL, LONGEST_LABEL_VALUE = 16, 64, 256
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
#: the body is JSON, never a pickle.
SIGNED, LARGE, REFS, PARTS, JSON = 1, 2, 4, 8, 16
#: The only flag of the value of a node that has waited for a signal: its signed arguments, and JSON from the sender.
SIGNAL = 32
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
