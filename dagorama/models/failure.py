"""A failure as a value: a node gets it instead of the value of a failed node, if it asked for the outcome."""

from dataclasses import dataclass, field
from uuid import UUID

from dagorama.errors import (
    FailedAttempt,
    NodeCancelled,
    NodeFailed,
    ProcessDied,
    PromiseMisuse,
    QueueTimeout,
    ResultRejected,
    SignalTimeout,
    WorkerLost,
)
from dagorama.models.promise import DAGPromise

#: The types of failures that the broker records itself.
_BROKER_FAILURES: dict[str, type[NodeFailed]] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (QueueTimeout, SignalTimeout, WorkerLost, ProcessDied, ResultRejected)
}


class _HasEnded(type):
    """The class of Failure: refuse to say whether a promise is one before its node has ended."""

    def __instancecheck__(cls, instance: object) -> bool:
        if isinstance(instance, DAGPromise):
            raise PromiseMisuse(
                f"whether this is a {cls.__name__} is not known before its node has ended: {instance!r}; "
                f"pass outcome(promise) to a @dagorama method and ask there"
            )
        return super().__instancecheck__(instance)


@dataclass(frozen=True, slots=True)
class Failure(metaclass=_HasEnded):
    """The reason why a node has no value: its own failure, or the failure of a node that it needed.

    `type`, `message` and `traceback` describe the last attempt. A Failure is false, so that `value or default` and
    `filter(None, values)` skip it; isinstance tells it from other false values.
    """

    function: str
    type: str = ""  #: the qualified name of the exception, "builtins.ValueError"
    message: str = ""
    traceback: str = field(default="", repr=False)
    attempts: int = 1
    earlier: tuple[FailedAttempt, ...] = field(
        default=(), repr=False
    )  #: the attempts before, oldest first, as far as kept
    node_id: UUID | None = None  #: the node that failed
    cancelled: bool = False
    instance_id: UUID | None = None  #: the instance of the node that has no value
    node_instance_id: UUID | None = None  #: the instance of the node that failed, if it is known

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.error().summary

    def error(self) -> NodeFailed:
        """Return this failure as an exception to raise: NodeFailed, or the subclass for its type."""
        # A failure with a traceback was raised by user code, even if its class has one of these names.
        recorded = NodeFailed if self.traceback else _BROKER_FAILURES.get(self.type, NodeFailed)
        kind = NodeCancelled if self.cancelled else recorded
        return kind(
            self.function, self.attempts, self.type, self.message, self.traceback,
            earlier=self.earlier, node_id=self.node_id, instance_id=self.instance_id,
            node_instance_id=self.node_instance_id,
        )  # fmt: skip
