"""Exit codes of the `dagorama` command, and the one map from errors to them.

The numbers above 2 are the numbers of sysexits.h, timeout(1) and shells, so that scripts can tell "try again" from "fix
it". The exit codes of `worker` and `dagorama-broker` are older and their own; docs/reference/commands.md lists all.
"""

from __future__ import annotations

from enum import IntEnum

from dagorama.errors import AccessDenied, BrokerOverloaded, BrokerUnavailable, DagoramaError, SettingsError


class ExitCode(IntEnum):
    """An exit code and its meaning."""

    OK = 0
    REFUSED = 1  #: the broker refused, or a node that the command waited for has failed
    USAGE = 2  #: wrong options or arguments
    UNAVAILABLE = 69  #: no broker answers
    TRY_AGAIN = 75  #: the broker has reached a limit for now
    NOT_PERMITTED = 77  #: the token is missing, unknown, or lacks the role
    BAD_CONFIG = 78  #: a setting has an invalid value
    TIMEOUT = 124  #: the time of --timeout is over
    INTERRUPTED = 130  #: Ctrl-C


#: The first class that an error is an instance of counts.
_CODES: dict[type[BaseException], ExitCode] = {
    SettingsError: ExitCode.BAD_CONFIG,
    BrokerUnavailable: ExitCode.UNAVAILABLE,
    AccessDenied: ExitCode.NOT_PERMITTED,
    TimeoutError: ExitCode.TIMEOUT,
    KeyboardInterrupt: ExitCode.INTERRUPTED,
    DagoramaError: ExitCode.REFUSED,
}


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for an error of dagorama, a TimeoutError or a KeyboardInterrupt."""
    if isinstance(error, BrokerOverloaded):  # a request that is too large stays too large
        return ExitCode.REFUSED if error.retry_after is None else ExitCode.TRY_AGAIN
    return next(code for kind, code in _CODES.items() if isinstance(error, kind))
