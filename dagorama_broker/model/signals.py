"""Defines signals, and the nodes that wait for them: values that people and programs send to an instance by name."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

#: The first bytes of the value of a node that has waited for a signal; docs/reference/envelopes.md has the rest.
SIGNAL_HEAD = b"\x01\x20"
#: Signals of one name that an instance keeps until a node waits for them.
MOST_KEPT = 1_000
#: Keys of signals of one name that an instance remembers, the latest.
MOST_KEYS = 10_000


class WaitEnd(IntEnum):
    """How a node that waits for a signal has ended. The store uses the numbers."""

    NONE = 0  #: it has not
    SENT = 1  #: it got a signal
    TIMED_OUT = 2  #: it failed
    DEFAULT = 3  #: its timeout was over, and it completed with its default
    CANCELLED = 4


class WaitRow(NamedTuple):
    """A node that waits for a signal instead of a worker."""

    key: int
    instance: int
    name: str  #: of the signal
    timeout: float  #: seconds; 0: none
    until: float  #: seconds since 1970 when the timeout is over; 0: never
    has_default: int  #: 1: it completes then, with its default
    schema: bytes  #: JSON schema of the value; empty: it is not known
    arguments: bytes  #: its signed envelope, which becomes part of its value
    end: int = WaitEnd.NONE
    by: str = ""  #: name of the token of the sender of its signal
    ended: float = 0.0  #: seconds since 1970


class SignalRow(NamedTuple):
    """A signal that is kept until a node waits for it, or whose key is remembered."""

    number: int  #: counts up
    instance: int
    name: str
    key: str  #: of the sender; empty: it has none
    digest: bytes  #: of its value
    by: str  #: name of the token of its sender; empty: the broker requires none
    sent: float  #: seconds since 1970
    value: bytes | None  #: JSON in UTF-8; None: a node has it


class NewSignal(NamedTuple):
    """A signal that someone sends."""

    name: str
    value: bytes  #: JSON in UTF-8
    digest: bytes  #: of the value, the same for JSON with other spaces or another order of keys
    key: str = ""
    by: str = ""


class Mail(NamedTuple):
    """The stored signals of an instance, and its nodes that wait or have waited for one."""

    waits: list[WaitRow]  #: in the order of their keys
    signals: list[SignalRow]  #: in the order of their numbers


NO_MAIL = Mail([], [])
