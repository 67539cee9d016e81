"""Every error that dagorama raises on purpose: one tree, one sentence each, split by who must act.

DagoramaError
├── PromiseMisuse (TypeError)              a promise was used as a value: fix the DAG
│   └── PromiseAttribute (AttributeError)  the same, for `promise.name`
├── NotPicklable (TypeError)               an argument or a result cannot be pickled: change that part
├── ValueNotReadable                       an argument or a result cannot be read here: its class, or the bytes
├── NodeFailed                             the work failed: read the remote traceback
│   └── NodeCancelled                      somebody stopped it
├── CodeMismatchException                  this worker has other code: deploy
├── FunctionNotFound (ValueError)          no such module, definition or function here: import path
├── DefinitionNotRegistered                the definition needs constructor arguments: register_definition
├── WrongInstance (ValueError)             a promise of one instance was given to another
├── NotInInstance (ValueError)             a decorated function was called outside an instance
├── SettingsError (ValueError)             an environment variable holds something else: fix it
└── BrokerError                            the broker said no, or nothing
    ├── BrokerUnavailable                  nobody answers: start one, or try later
    ├── UnknownToBroker                    it has no such instance, node or value
    ├── RefusedByBroker                    the request contradicts what it has, or is too large
    └── BrokerOverloaded                   it holds as much as it may: try later

The rule: all of them can be pickled, and none of them holds a payload.
"""


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


class NodeFailed(DagoramaError):
    """A node ended without a value; `__cause__` is the original exception where it could be rebuilt.

    `type` is the qualified name of that exception ("builtins.ValueError"), `traceback` its text as it was
    printed where the node ran.
    """

    outcome = "failed"

    def __init__(
        self, function: str, attempts: int = 1, type: str = "", message: str = "", traceback: str = ""
    ) -> None:
        super().__init__(function, attempts, type, message, traceback)
        self.function = function
        self.attempts = attempts
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        runs = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        reason = ": ".join(part for part in (self.type.removeprefix("builtins."), self.message) if part)
        headline = f"{self.function} {self.outcome} after {runs}" + (f": {reason}" if reason else "")
        return f"{headline}\n\nwhere it ran:\n{self.traceback.rstrip()}" if self.traceback.strip() else headline


class NodeCancelled(NodeFailed):
    """A node was cancelled, or a node that it needed was."""

    outcome = "was cancelled"


class CodeMismatchException(DagoramaError):
    """A node was made by other code than this worker has."""


class FunctionNotFound(DagoramaError, ValueError):
    """A function's name leads to nothing that can be imported here."""


class DefinitionNotRegistered(DagoramaError):
    """A definition needs constructor arguments and this process has not registered one."""


class WrongInstance(DagoramaError, ValueError):
    """A promise of one instance was used in another."""


class NotInInstance(DagoramaError, ValueError):
    """A decorated function was called on something that is not an instance of its definition."""


class SettingsError(DagoramaError, ValueError):
    """An environment variable holds a value that cannot be used."""


class BrokerError(DagoramaError):
    """The broker refused a call or did not answer it; `status` is the name of the gRPC code."""

    def __init__(self, message: str, status: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.status = status


class BrokerUnavailable(BrokerError):
    """No broker answers where one was expected."""


class UnknownToBroker(BrokerError):
    """The broker has no such instance, node or value."""


class RefusedByBroker(BrokerError):
    """The broker will not do this, and nothing changed."""


class BrokerOverloaded(BrokerError):
    """The broker, or a message to it, has reached a bound."""
