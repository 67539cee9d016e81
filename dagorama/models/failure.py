"""What a node gets in place of a value that another one failed to give, where it asked for the outcome."""

from dataclasses import dataclass, field
from uuid import UUID

from dagorama.errors import FailedRun, NodeCancelled, NodeFailed, PromiseMisuse
from dagorama.models.promise import DAGPromise


class _HasEnded(type):
    """Failure's class: whether a promise will be one cannot be asked before its node has ended."""

    def __instancecheck__(cls, instance: object) -> bool:
        if isinstance(instance, DAGPromise):
            raise PromiseMisuse(
                f"whether this is a {cls.__name__} is not known before its node has ended: {instance!r}; "
                f"pass outcome(promise) to a @dagorama method and ask there"
            )
        return super().__instancecheck__(instance)


@dataclass(frozen=True, slots=True)
class Failure(metaclass=_HasEnded):
    """How a node ended without a value: its own failure, or that of the node that it needed.

    `type`, `message` and `traceback` are of the last run, as it was described where it ran. A Failure is false, so
    that `value or default` and `filter(None, values)` leave it out; isinstance tells it from values that are false.
    """

    function: str
    type: str = ""  #: the qualified name of the exception, "builtins.ValueError"
    message: str = ""
    traceback: str = field(default="", repr=False)
    attempts: int = 1
    earlier: tuple[FailedRun, ...] = field(default=(), repr=False)  #: the runs before, oldest first, as far as kept
    node_id: UUID | None = None  #: of the node that failed
    cancelled: bool = False
    instance_id: UUID | None = None  #: of the node that has no value, which may be another one

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.error().summary

    def error(self) -> NodeFailed:
        """The same as an exception: `raise failure.error()` where one failure too many is one."""
        kind = NodeCancelled if self.cancelled else NodeFailed
        return kind(
            self.function, self.attempts, self.type, self.message, self.traceback,
            earlier=self.earlier, node_id=self.node_id, instance_id=self.instance_id,
        )  # fmt: skip
