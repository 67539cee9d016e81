"""Every error that dagorama raises on purpose: one tree, one sentence each, split by who must act.

DagoramaError
├── PromiseMisuse (TypeError)              a promise was used as a value: fix the DAG
│   └── PromiseAttribute (AttributeError)  an attribute of a promise was used: fix the DAG
├── NotPicklable (TypeError)               an argument or a result cannot be pickled: change that part
├── TypeMismatch (TypeError)               a value does not fit the annotation of a JSON function: change one of both
├── UncacheableArgument (TypeError)        an argument of a function with a cache cannot be compared: give it a key
├── ValueNotReadable                       an argument or a result cannot be read here: its class, or the bytes
├── UnverifiedValue                       it is unsigned, or its key is unknown here: set the signing keys
├── TamperedValue                          it was changed, or signed for another place: find out who did it
├── NodeFailed                             the work failed: read the remote traceback
│   ├── NodeCancelled                      it was cancelled
│   ├── QueueTimeout                       no worker took it in time: start workers, or raise queue_timeout
│   ├── SignalTimeout                      its signal was not sent in time: raise timeout, or give a default
│   ├── WorkerLost                         its workers kept disappearing: look at their machines
│   ├── ProcessDied                        its process kept dying: look for crashes and memory limits
│   └── ResultRejected                     the broker did not accept its result: return less, or store it again
├── RetryLater                             raised by a node that must run again after some seconds
├── CodeMismatchException                  this worker has other code: deploy
├── FunctionNotFound (ValueError)          no such module, definition or function here: import path
├── DefinitionNotRegistered                the definition needs constructor arguments: register_definition
├── DefinitionDiffers                      a worker has registered another one than the caller's: make them alike
├── InstanceExists (ValueError)            an ID was given to an instance with other arguments: use another ID
├── WrongInstance (ValueError)             a promise of one instance was given to another
├── ReservedName (TypeError)               a definition uses a name that dagorama needs: rename it
├── NotInInstance (ValueError)             a decorated function was called outside an instance
├── WorkersNotStarted                      launched workers ended before they were ready: read the reason
├── NotInNode (RuntimeError)               current() was called outside a running node
├── ResourceNotOpened (RuntimeError)       a resource cannot be opened in this process: read the cause
├── SettingsError (ValueError)             an environment variable has an invalid value: fix it
└── BrokerError                            the broker refused a call, or did not answer
    ├── BrokerUnavailable                  no broker answers: start one, or try later
    ├── ValuesUnavailable                  the object store of large values does not answer: try later
    ├── AccessDenied                       the token is missing or lacks the role: DAGORAMA_AUTH_TOKEN
    ├── NotFound                           it has no such instance, node or value
    ├── RequestRejected                    the request contradicts its records, or is too large
    └── BrokerOverloaded                   it has reached a limit: try later

The rule: all of them can be pickled, and none of them holds a payload. Each says which section documents it.
"""

from typing import NamedTuple
from uuid import UUID

from dagorama_monitoring.documentation import documented

#: The largest number of characters of an earlier attempt's reason in the text of an error.
LINE = 200


class DagoramaError(Exception):
    """The base class of all errors that dagorama raises on purpose."""

    __notes__ = documented(__name__)


class PromiseMisuse(DagoramaError, TypeError):
    """A promise was used as if it were its value."""


class PromiseAttribute(PromiseMisuse, AttributeError):
    """An attribute was read from a promise instead of its value."""


class NotPicklable(DagoramaError, TypeError):
    """An argument or a result cannot be pickled, and the message names the part."""


class TypeMismatch(DagoramaError, TypeError):
    """A value does not fit its annotation, or the annotation has no JSON form, in a function with codec="json"."""


class UncacheableArgument(DagoramaError, TypeError):
    """The cache key of a call cannot be computed, because of an argument whose type has no content to compare."""


class ValueNotReadable(DagoramaError):
    """The bytes of an argument or a result cannot be turned into an object here."""


class UnverifiedValue(DagoramaError):
    """An argument, a result, an exception or a rebinding is unsigned, or its signing key is not held here."""


class TamperedValue(DagoramaError):
    """An argument, a result, an exception or a rebinding was changed, or was signed for another place."""


class FailedAttempt(NamedTuple):
    """A failed attempt of a node, as its worker described it."""

    type: str  #: the qualified name of the exception, "builtins.ValueError"
    message: str
    traceback: str

    @property
    def reason(self) -> str:
        """Type and message in one line."""
        name = self.type.removeprefix("builtins.").removeprefix(f"{__name__}.")
        return ": ".join(part for part in (name, self.message) if part)

    @property
    def address(self) -> str:
        """A sentence with the address of its documentation; empty if it is not an error of dagorama."""
        kind = globals().get(self.type.removeprefix(f"{__name__}."))
        return kind.__notes__[0] if isinstance(kind, type) and issubclass(kind, DagoramaError) else ""


class NodeFailed(DagoramaError):
    """A node ended without a value; `__cause__` is the original exception if it could be rebuilt.

    `function`, `node_id` and `node_instance_id` name the node that failed: the awaited node itself, or one that it
    needed. In the second case `dependent` names the function of the awaited node, whose instance is `instance_id`.
    `type`, `message` and `traceback` describe the last attempt, and `earlier` the ones before it, as far as kept.
    """

    outcome = "failed"

    def __init__(
        self, function: str, attempts: int = 1, type: str = "", message: str = "", traceback: str = "", *,
        earlier: tuple[FailedAttempt, ...] = (), node_id: UUID | None = None, dependent: str = "",
        instance_id: UUID | None = None, node_instance_id: UUID | None = None,
    ) -> None:  # fmt: skip
        # Attributes that are not in `args` are pickled with the attributes of the exception.
        super().__init__(function, attempts, type, message, traceback)
        self.function, self.attempts, self.type = function, attempts, type
        self.message, self.traceback, self.earlier = message, traceback, earlier
        self.node_id, self.dependent, self.instance_id = node_id, dependent, instance_id
        self.node_instance_id = node_instance_id or instance_id

    @property
    def identifier(self) -> UUID | None:
        """The ID of the failed node: another name of `node_id`."""
        return self.node_id

    @property
    def headline(self) -> str:
        """The summary and the IDs of the failed node and its instance, which `dagorama show INSTANCE NODE` takes."""
        places = ("instance", self.node_instance_id), ("node", self.node_id)
        where = ", ".join(f"{what} {found}" for what, found in places if found is not None)
        return f"{self.summary} ({where})" if where else self.summary

    @property
    def summary(self) -> str:
        """The failed node and its reason, in one sentence without IDs."""
        what = f"{self.function} {self.outcome}"
        if self.attempts:
            what += " after 1 attempt" if self.attempts == 1 else f" after {self.attempts} attempts"
        if reason := FailedAttempt(self.type, self.message, "").reason:
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


class QueueTimeout(NodeFailed):
    """A node was queued for longer than its `queue_timeout`: start workers that may run it, or raise the timeout."""


class SignalTimeout(NodeFailed):
    """A node waited for a signal that was not sent within its `timeout`: retry it to wait again, or set a default."""


class WorkerLost(NodeFailed):
    """A worker or its connection was lost each time that a node ran: look at their logs, machines and network."""


class ProcessDied(NodeFailed):
    """A node's process died each time that it ran: look for a crash, os._exit(), or too little memory (max_deaths)."""


class ResultRejected(NodeFailed):
    """A node ran, and the broker did not accept its result or its child nodes: the message says what to change."""


class RetryLater(DagoramaError):
    """Raised by a node that must run again after `retry_after` seconds, instead of the pause of its retry policy.

    The attempt counts, regardless of `retry_on` and `give_up_on`. If no attempts are left, or without a retry policy,
    the node fails as with any other exception.

    With `pause_key`, no other node with its `rate_key` or `concurrency_key` starts until then. Without a key this
    applies to its `limit`, or to its function if that has a `rate` or `max_concurrency`; else the node fails.
    """

    def __init__(self, retry_after: float, message: str = "", *, pause_key: bool = False) -> None:
        number = isinstance(retry_after, (int, float)) and not isinstance(retry_after, bool)
        if not number or not 0 <= retry_after < 2**31:
            raise ValueError(f"retry_after is {retry_after!r}: it must be a number of seconds from 0 to {2**31 - 1}")
        super().__init__(retry_after, message)
        self.retry_after, self.message, self.pause_key = retry_after, message, pause_key

    def __str__(self) -> str:
        return self.message or f"run again after {self.retry_after:g} seconds"


class CodeMismatchException(DagoramaError):
    """A node was created with other code than this worker has; `deployed` is the hash of the worker's code."""

    def __init__(self, message: str = "", deployed: str = "") -> None:
        super().__init__(message)
        self.deployed = deployed


class FunctionNotFound(DagoramaError, ValueError):
    """A function cannot be found here by its name."""


class DefinitionNotRegistered(DagoramaError):
    """A definition needs constructor arguments, and none is registered in this process."""


class DefinitionDiffers(DagoramaError):
    """A worker's registered definition differs from the caller's, which cannot be constructed there."""


class InstanceExists(DagoramaError, ValueError):
    """`start()` was given the ID of an instance of the same definition that was started with other arguments."""


class WrongInstance(DagoramaError, ValueError):
    """A promise of one instance was used in another."""


class ReservedName(DagoramaError, TypeError):
    """A definition has an attribute or a method with a name that dagorama uses itself."""


class NotInInstance(DagoramaError, ValueError):
    """A decorated function was called on something that is not an instance of its definition."""


class WorkersNotStarted(DagoramaError):
    """The workers of launch_workers() cannot run nodes, and the message says why."""


class NotInNode(DagoramaError, RuntimeError):
    """A function that works only in a running node was called outside one."""


class ResourceNotOpened(DagoramaError, RuntimeError):
    """A resource could not be opened in this process; `__cause__` is the reason."""


class SettingsError(DagoramaError, ValueError):
    """An environment variable or a file that it names has an invalid value."""


class BrokerError(DagoramaError):
    """The broker refused a call or did not answer it; `status` is the name of the gRPC code."""

    def __init__(self, message: str, status: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.status = status


class BrokerUnavailable(BrokerError):
    """No broker answers at the address of the settings."""

    was_connected = False  #: whether there was a connection that broke off during the call


class ValuesUnavailable(BrokerError):
    """The object store of the broker's large values does not answer, or refuses what the broker has allowed."""


class AccessDenied(BrokerError):
    """The broker does not know the token of this process, or the token's role does not allow this call."""


class NotFound(BrokerError):
    """The broker has no such instance, node or value."""


class RequestRejected(BrokerError):
    """The broker refused the call, and nothing has changed."""


class BrokerOverloaded(BrokerError):
    """A limit is reached; `retry_after` is the number of seconds to wait, or None if waiting does not help."""

    retry_after: float | None = None


def _shortened(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= LINE and line == text else line[:LINE] + " ..."
