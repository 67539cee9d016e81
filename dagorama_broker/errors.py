"""The errors of the broker as a tree; `rpc.status` maps each refusal to a gRPC status. A refusal changes nothing.

BrokerRefusal
├── NotFound             NOT_FOUND             an instance, node, source or value that does not exist
├── InvalidArgument      INVALID_ARGUMENT      the message itself is invalid
├── Conflict             ALREADY_EXISTS        the same ID with other content
├── FailedPrecondition   FAILED_PRECONDITION   possible at another time or for another caller
├── ResourceExhausted    RESOURCE_EXHAUSTED    a limit is exceeded
│   └── Full                                   a limit is exceeded now: it says when to try again
├── Unauthenticated      UNAUTHENTICATED       the caller is unknown
├── PermissionDenied     PERMISSION_DENIED     the caller may not do this
└── Unavailable          UNAVAILABLE           the broker is starting or leaving
    └── ValuesAway                             the object store of large values does not answer
Stopped
├── SettingsError (ValueError)  an option or an environment variable has an invalid value
├── BindError                   the broker cannot listen at the configured address
└── StoreError                  the store cannot be used: the broker stops, with this message
    └── Deposed                 another broker leads the store now: the broker stops, with exit code 3
IllegalTransition             a transition that is not in the table: a bug of the broker
"""

from __future__ import annotations

from datetime import UTC, datetime

from dagorama_monitoring.documentation import documented


class BrokerRefusal(Exception):
    """A call was refused and nothing changed."""


class NotFound(BrokerRefusal):
    """The call names something that does not exist."""


class InvalidArgument(BrokerRefusal):
    """The call is not well formed."""


class Conflict(BrokerRefusal):
    """An ID was submitted before with other content."""


class FailedPrecondition(BrokerRefusal):
    """The call is not possible in the current state."""


class ResourceExhausted(BrokerRefusal):
    """The call exceeds a limit."""


class Overloaded(ResourceExhausted):
    """The call exceeds a limit at this moment, because of other calls."""

    retry_after = 0.5  #: seconds


class Unauthenticated(BrokerRefusal):
    """The call has no token, or an invalid one."""


class PermissionDenied(BrokerRefusal):
    """The caller may not do this."""


class Unavailable(BrokerRefusal):
    """The broker is starting or leaving."""


class ValuesAway(Unavailable):
    """The object store of large values does not answer, or refuses what it did before; other calls are not affected."""


class Stopped(Exception):
    """An error that stops the broker, or prevents its start. It is for the operator, so it says where to read more."""

    __notes__ = documented(__name__)


class SettingsError(Stopped, ValueError):
    """A setting has an invalid value; the message names the setting."""


class BindError(Stopped):
    """The broker cannot listen; the message says where, and what to do."""


class StoreError(Stopped):
    """The store cannot be opened, read or written; the message says which, why and what to do."""


class Deposed(StoreError):
    """Another broker has taken the store over; this one can no longer commit."""


class IllegalTransition(Exception):
    """The transition is not in the transition table."""


def utc_text(seconds: float) -> str:
    """Return a time in seconds since 1970 for the message of an error, such as "2026-11-25 07:00:00 UTC"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
