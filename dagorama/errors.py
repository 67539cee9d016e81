"""Every error that dagorama raises on purpose: one tree, one sentence each, split by who must act.

DagoramaError
├── PromiseMisuse (TypeError)              a promise was used as a value: fix the DAG
│   └── PromiseAttribute (AttributeError)  the same, for `promise.name`
├── NotPicklable (TypeError)               an argument or a result cannot be pickled: change that part
├── ValueNotReadable                       an argument or a result cannot be read here: its class, or the bytes
├── UncheckableValue                       it is unsigned, or under a key that is not held here: set the keys
├── TamperedValue                          it is not what was signed for its place: somebody has changed it
├── NodeFailed                             the work failed: read the remote traceback
│   └── NodeCancelled                      somebody stopped it
├── RetryLater                             a node raises it to be run again after so many seconds
├── CodeMismatchException                  this worker has other code: deploy
├── FunctionNotFound (ValueError)          no such module, definition or function here: import path
├── DefinitionNotRegistered                the definition needs constructor arguments: register_definition
├── DefinitionDiffers                      a worker has registered another one than the caller's: make them alike
├── WrongInstance (ValueError)             a promise of one instance was given to another
├── ReservedName (TypeError)               a definition uses a name that dagorama needs: rename it
├── NotInInstance (ValueError)             a decorated function was called outside an instance
├── WorkersNotStarted                      launched workers ended before they were ready: read the reason
├── NotInNode (RuntimeError)               current() was called where no node runs
├── SettingsError (ValueError)             an environment variable holds something else: fix it
└── BrokerError                            the broker said no, or nothing
    ├── BrokerUnavailable                  nobody answers: start one, or try later
    ├── AccessDenied                       without a token, or with one that may not do this: DAGORAMA_AUTH_TOKEN
    ├── UnknownToBroker                    it has no such instance, node or value
    ├── RefusedByBroker                    the request contradicts what it has, or is too large
    └── BrokerOverloaded                   it holds as much as it may: try later

The rule: all of them can be pickled, and none of them holds a payload.
"""

from typing import NamedTuple
from uuid import UUID

#: characters of an earlier run's reason in the text of an error
LINE = 200


class DagoramaError(Exception):
    """Whatever dagorama raises on purpose."""


class PromiseMisuse(DagoramaError, TypeError):
    """A promise was used as if it were its value."""


class PromiseAttribute(PromiseMisuse, AttributeError):
    """An attribute of a promise's value was asked of the promise."""


class NotPicklable(DagoramaError, TypeError):
    """An argument or a result cannot be pickled, and the message names the part."""


class ValueNotReadable(DagoramaError):
    """The bytes of an argument or a result cannot be turned into an object here."""


class UncheckableValue(DagoramaError):
    """An argument, a result, an exception or an adoption is unsigned, or signed under a key that is not held here."""


class TamperedValue(DagoramaError):
    """An argument, a result, an exception or an adoption is under a key held here, and not for where it was found."""


class FailedRun(NamedTuple):
    """A run of a node that raised, as it was described where it ran."""

    type: str  #: the qualified name of the exception, "builtins.ValueError"
    message: str
    traceback: str

    @property
    def reason(self) -> str:
        """Type and message in one line."""
        return ": ".join(part for part in (self.type.removeprefix("builtins."), self.message) if part)


class NodeFailed(DagoramaError):
    """A node ended without a value; `__cause__` is the original exception where it could be rebuilt.

    `function` and `node_id` name the culprit: the node itself, or one that it needed, and then `dependent` names
    the function of the node itself. `instance_id` is the instance of the node itself. `type`, `message` and
    `traceback` are of the culprit's last run as it was described where it ran; `earlier` has those before it, oldest
    first, as far as the broker keeps them.
    """

    outcome = "failed"

    def __init__(
        self,
        function: str,
        attempts: int = 1,
        type: str = "",
        message: str = "",
        traceback: str = "",
        *,
        earlier: tuple[FailedRun, ...] = (),
        node_id: UUID | None = None,
        dependent: str = "",
        instance_id: UUID | None = None,
    ) -> None:
        # What is not among its args is pickled with its attributes.
        super().__init__(function, attempts, type, message, traceback)
        self.function = function
        self.attempts = attempts
        self.type = type
        self.message = message
        self.traceback = traceback
        self.earlier = earlier
        self.node_id = node_id
        self.dependent = dependent
        self.instance_id = instance_id

    @property
    def identifier(self) -> UUID | None:
        """The same as `node_id`."""
        return self.node_id

    @property
    def headline(self) -> str:
        """What happened, in one sentence, and where: `dagorama show INSTANCE NODE` tells all that is kept of it."""
        places = ("instance", self.instance_id), ("node", self.node_id)
        where = ", ".join(f"{what} {id}" for what, id in places if id is not None)
        return f"{self.summary} ({where})" if where else self.summary

    @property
    def summary(self) -> str:
        """What happened, in one sentence without ids."""
        what = f"{self.function} {self.outcome}"
        if self.attempts:
            what += " after 1 attempt" if self.attempts == 1 else f" after {self.attempts} attempts"
        if reason := FailedRun(self.type, self.message, "").reason:
            what += f": {reason}"
        return f"{self.dependent} has no value: {what}" if self.dependent else what

    def __str__(self) -> str:
        parts = [self.headline]
        if self.earlier:
            parts.append("before that:\n" + "\n".join(_shortened(run.reason) for run in self.earlier))
        if self.traceback.strip():
            parts.append(f"where it ran:\n{self.traceback.rstrip()}")
        return "\n\n".join(parts)


class NodeCancelled(NodeFailed):
    """A node was cancelled, or a node that it needed was."""

    outcome = "was cancelled"


class RetryLater(DagoramaError):
    """Raised by a node to be run again after `retry_after` seconds, in place of the pause that its retry would make.

    The run counts as one of its attempts, whatever `retry_on` and `give_up_on` say; without attempts left, or
    without a retry, the node fails as with any other exception.
    """

    def __init__(self, retry_after: float, message: str = "") -> None:
        number = isinstance(retry_after, (int, float)) and not isinstance(retry_after, bool)
        if not number or not 0 <= retry_after < 2**31:
            raise ValueError(f"retry_after is {retry_after!r}: it has to be a number of seconds from 0 to {2**31 - 1}")
        super().__init__(retry_after, message)
        self.retry_after = retry_after
        self.message = message

    def __str__(self) -> str:
        return self.message or f"to be run again after {self.retry_after:g} seconds"


class CodeMismatchException(DagoramaError):
    """A node was made by other code than this worker has; `deployed` is the hash of the code that it has."""

    def __init__(self, message: str = "", deployed: str = "") -> None:
        super().__init__(message)
        self.deployed = deployed


class FunctionNotFound(DagoramaError, ValueError):
    """A function's name leads to nothing that can be imported here."""


class DefinitionNotRegistered(DagoramaError):
    """A definition needs constructor arguments and this process has not registered one."""


class DefinitionDiffers(DagoramaError):
    """A worker has registered a definition of this class that is not like the caller's, which cannot be made there."""


class WrongInstance(DagoramaError, ValueError):
    """A promise of one instance was used in another."""


class ReservedName(DagoramaError, TypeError):
    """A definition has an attribute or a method under a name that dagorama uses itself."""


class NotInInstance(DagoramaError, ValueError):
    """A decorated function was called on something that is not an instance of its definition."""


class WorkersNotStarted(DagoramaError):
    """The workers that launch_workers() started cannot run anything, and the message says why."""


class NotInNode(DagoramaError, RuntimeError):
    """What only a running node can ask was asked where none runs."""


class SettingsError(DagoramaError, ValueError):
    """An environment variable holds a value that cannot be used."""


class BrokerError(DagoramaError):
    """The broker refused a call or did not answer it; `status` is the name of the gRPC code."""

    def __init__(self, message: str, status: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.status = status


class BrokerUnavailable(BrokerError):
    """No broker answers where one was expected.

    `was_connected` says whether there was a connection, and the call broke off with it.
    """

    was_connected = False


class AccessDenied(BrokerError):
    """The broker does not know who calls, or whoever it is may not do this."""


class UnknownToBroker(BrokerError):
    """The broker has no such instance, node or value."""


class RefusedByBroker(BrokerError):
    """The broker will not do this, and nothing changed."""


class BrokerOverloaded(BrokerError):
    """The broker, or a message to it, has reached a bound.

    `retry_after` is the seconds after which the broker may take it, where that is a matter of time.
    """

    retry_after: float | None = None


def _shortened(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= LINE and line == text else line[:LINE] + " ..."
