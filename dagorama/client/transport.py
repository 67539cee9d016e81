"""What gRPC reports of the connection itself, told from what the broker has answered.

The rule: a call that the other end, or something between, broke off says nothing of the broker. It may be sent again.
"""

from __future__ import annotations

#: Details of a call that this process has cancelled itself.
CANCELLED_HERE = frozenset({"Locally cancelled by application!", "Channel closed!"})

#: How details begin if a stream or a connection was broken off, whatever status gRPC gives it: INTERNAL, CANCELLED,
#: RESOURCE_EXHAUSTED and PERMISSION_DENIED are what it makes of the error codes of a RST_STREAM, UNKNOWN what earlier
#: versions make of a lost connection.
_BROKEN_OFF = ("Stream removed", "RST_STREAM", "Received RST_STREAM", "GOAWAY received", "Stream closed")
#: What details hold if no connection came about.
_NOT_REACHED = ("failed to connect", "resolution", "lookup failed", "all backends")


def is_broken_off(status: str, details: str) -> bool:
    """Whether a call was ended by neither the broker's answer nor this process."""
    if status == "CANCELLED":  # which the broker never answers
        return details not in CANCELLED_HERE
    return status != "UNAVAILABLE" and details.startswith(_BROKEN_OFF)


def was_reached(status: str, details: str) -> bool:
    """Whether there was a connection with a broker, though the call failed."""
    if status == "UNAVAILABLE":
        return not any(text in details for text in _NOT_REACHED)
    return status != "DEADLINE_EXCEEDED" and details not in CANCELLED_HERE
