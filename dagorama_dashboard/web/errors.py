"""Errors as pages, which say what happened and what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from dagorama.errors import AccessDenied, BrokerError, BrokerOverloaded, BrokerUnavailable, NotFound, RequestRejected

#: The title of a page for somebody whose session is over.
SIGN_IN = "Sign in again"


class LoginNeeded(Exception):
    """The broker requires a token, and the request has none, or one that is no longer valid."""


class TokensNeeded(Exception):
    """Other machines can reach the dashboard, and the broker requires no tokens."""


class Problem(NamedTuple):
    status: HTTPStatus
    title: str
    text: str
    is_passing: bool = False  #: the page is loaded again by itself


def problem_of(error: BrokerError) -> Problem:
    """Return what to show for an error of the broker."""
    text = f"{error}"
    match error:
        case BrokerUnavailable():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "No broker answers", text, True)
        case BrokerOverloaded():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The broker is too busy to answer", text, True)
        case AccessDenied(status="UNAUTHENTICATED"):
            return Problem(HTTPStatus.UNAUTHORIZED, SIGN_IN, text)
        case AccessDenied():
            return Problem(HTTPStatus.FORBIDDEN, "Your token does not allow this", text)
        case NotFound():
            return Problem(HTTPStatus.NOT_FOUND, "Not found", text)
        case RequestRejected():
            return Problem(HTTPStatus.BAD_REQUEST, "The broker refuses this", text)
    return Problem(HTTPStatus.BAD_GATEWAY, "The broker has answered with an error", text)
