"""What the broker refuses, drawn as a tree; `service` maps each to one gRPC status. A refusal changes nothing.

BrokerRefusal
├── NotKnown            NOT_FOUND             an instance, node, source or value that is not there
├── Malformed           INVALID_ARGUMENT      the message itself is wrong
├── Conflict            ALREADY_EXISTS        the same id with other content
├── NotAllowedNow       FAILED_PRECONDITION   true at another time or for another caller
├── TooMuch             RESOURCE_EXHAUSTED    past a bound
│   └── Full                                  ... that others fill just now: it says when to try again
├── Unauthenticated     UNAUTHENTICATED       nobody knows who calls
├── NotPermitted        PERMISSION_DENIED     whoever calls may not do this
└── NotServing          UNAVAILABLE           the broker is starting or leaving
SettingsError           an option or a variable of the environment has a value that cannot be used
CannotServe             the broker cannot listen where it was told to
StoreError              the store cannot be used: the broker stops, with the sentence
IllegalMove             a transition that the table does not have: a fault of ours
"""

from __future__ import annotations


class BrokerRefusal(Exception):
    """A call was refused and nothing changed."""


class NotKnown(BrokerRefusal):
    """It names something that is not there."""


class Malformed(BrokerRefusal):
    """It is not well formed."""


class Conflict(BrokerRefusal):
    """The same id was given before with other content."""


class NotAllowedNow(BrokerRefusal):
    """It does not fit the state that things are in."""


class TooMuch(BrokerRefusal):
    """It goes past a bound."""


class Full(TooMuch):
    """It goes past a bound that others fill at this moment."""

    retry_after = 0.5  #: seconds


class Unauthenticated(BrokerRefusal):
    """It comes without a token, or with one that is not good."""


class NotPermitted(BrokerRefusal):
    """Whoever calls may not do this."""


class NotServing(BrokerRefusal):
    """The broker is starting or leaving."""


class SettingsError(ValueError):
    """A setting's value cannot be used; the message names the setting."""


class CannotServe(Exception):
    """The broker cannot listen; the message says where and what to do."""


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which, why and what to do."""


class IllegalMove(Exception):
    """The transition table has no such move."""
