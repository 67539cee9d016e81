"""gRPC statuses as our errors, and whether a failed call reached a broker.

The rule: a call that was broken off on the way says nothing about the broker and may be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagorama.api.contract import RETRY_AFTER, VALUES_AWAY
from dagorama.client.certificates import meaning
from dagorama.errors import (
    AccessDenied,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    NotFound,
    RequestRejected,
    ValuesUnavailable,
)

if TYPE_CHECKING:
    import grpc

    from dagorama.api import broker_pb2

ERRORS: dict[str, type[BrokerError]] = {
    "UNAVAILABLE": BrokerUnavailable,
    "DEADLINE_EXCEEDED": BrokerUnavailable,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": RequestRejected,
    "FAILED_PRECONDITION": RequestRejected,
    "ALREADY_EXISTS": RequestRejected,
    "OUT_OF_RANGE": RequestRejected,
    "RESOURCE_EXHAUSTED": BrokerOverloaded,
}

#: Details of a call that this process has cancelled itself.
CANCELLED_HERE = frozenset({"Locally cancelled by application!", "Channel closed!"})

#: Details begin like this if a stream or a connection was broken off, with any status: INTERNAL, CANCELLED,
#: RESOURCE_EXHAUSTED and PERMISSION_DENIED are gRPC's names for the error codes of a RST_STREAM, UNKNOWN is what
#: earlier versions report for a lost connection.
_BROKEN_OFF = ("Stream removed", "RST_STREAM", "Received RST_STREAM", "GOAWAY received", "Stream closed")
#: Details contain one of these if no connection was established.
_NOT_REACHED = ("failed to connect", "resolution", "lookup failed", "all backends")


def is_broken_off(status: str, details: str) -> bool:
    """Return whether a call was ended by neither the broker's answer nor this process."""
    if status == "CANCELLED":  # the broker never answers with it
        return details not in CANCELLED_HERE
    return status != "UNAVAILABLE" and details.startswith(_BROKEN_OFF)


def was_reached(status: str, details: str) -> bool:
    """Return whether a failed call had a connection to a broker."""
    if status == "UNAVAILABLE":
        return not any(text in details for text in _NOT_REACHED)
    return status != "DEADLINE_EXCEEDED" and details not in CANCELLED_HERE


def has_reached(error: grpc.RpcError) -> bool:
    """Return whether the call that failed with this error had a connection to a broker."""
    return was_reached(*_status_and_details(error))


def broker_error(error: grpc.RpcError, address: str) -> BrokerError:
    """Return our error for a failed call, sync or aio, to the broker at `address`."""
    status, details = _status_and_details(error)
    if is_broken_off(status, details):
        return _broken_off(status, details, address)
    if any(key == VALUES_AWAY for key, _ in _trailing(error)):
        return ValuesUnavailable(details, status)
    if status == "UNAVAILABLE":
        details = unreachable_text(address, meaning(details))
    elif status == "DEADLINE_EXCEEDED":
        details = f"the broker at {address} did not answer in time ({details})"
    found = _error(status, details, _retry_after(error))
    if isinstance(found, BrokerUnavailable):
        found.was_connected = has_reached(error)
    return found


def unreachable_text(address: str, reason: str) -> str:
    """Return the sentence for a broker to which there is no connection."""
    return (
        f"no broker answers at {address} ({reason}); start one with `dagorama-broker serve`, or set DAGORAMA_HOST and "
        "DAGORAMA_PORT to its address"
    )


def refusal_error(refusal: broker_pb2.Refusal, address: str) -> BrokerError:
    """Return our error for a refusal that came as an answer on an open stream."""
    import grpc

    status = next((code.name for code in grpc.StatusCode if code.value[0] == refusal.status), "UNKNOWN")
    if is_broken_off(status, refusal.message):
        return _broken_off(status, refusal.message, address)
    return _error(status, refusal.message, refusal.retry_after / 1000 or None)


def overloaded_error(error: BrokerOverloaded, seconds: float) -> BrokerOverloaded:
    """Return the error of a call that an overloaded broker has refused for `seconds`."""
    found = BrokerOverloaded(
        f"{error}; the broker was overloaded for {seconds:.0f} seconds: add workers, submit smaller batches, or give"
        " the broker more memory (DAGORAMA_MAX_MEMORY)",
        error.status,
    )
    found.retry_after = error.retry_after
    return found


def _broken_off(status: str, details: str, address: str) -> BrokerUnavailable:
    found = BrokerUnavailable(
        f"the connection to the broker at {address} broke off ({status}: {details})", "UNAVAILABLE"
    )
    found.was_connected = True
    return found


def _status_and_details(error: grpc.RpcError) -> tuple[str, str]:
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")()
    return code.name if code is not None else "UNKNOWN", str(details or error)


def _error(status: str, details: str, retry_after: float | None) -> BrokerError:
    found = ERRORS.get(status, BrokerError)(details, status)
    if isinstance(found, BrokerOverloaded):
        found.retry_after = retry_after
    return found


def _retry_after(error: grpc.RpcError) -> float | None:
    """Return the seconds after which the call may be sent again; None if the broker does not say so."""
    found = (value for key, value in _trailing(error) if key == RETRY_AFTER)
    return next((int(value) / 1000 for value in found if value.isdecimal()), None)


def _trailing(error: grpc.RpcError) -> Sequence[tuple[str, str]]:
    return getattr(error, "trailing_metadata", lambda: ())() or ()
