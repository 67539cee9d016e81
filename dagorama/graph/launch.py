"""One call of a definition: a new instance, whose first nodes are submitted together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from dagorama.client.connection import is_inline
from dagorama.client.large_values import leave_for_submission
from dagorama.client.worker_thread import in_thread
from dagorama.errors import PromiseMisuse, WrongInstance
from dagorama.graph import shipping
from dagorama.graph.constructor_arguments import packed
from dagorama.graph.hooks import hook_message
from dagorama.graph.immediate_scope import CallScope, ImmediateScope
from dagorama.graph.node_batch import NodeBatch
from dagorama.graph.reserved import check_attributes
from dagorama.graph.scope import InstanceScope, attempt_scope, running_entry
from dagorama.graph.start_options import StartOptions
from dagorama.graph.submission import submit
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise
from dagorama.user_code.class_code import renew
from dagorama.user_code.names import class_name
from dagorama.values.signing import HOOK_OF_INSTANCE

InstanceT = TypeVar("InstanceT")


class Launch(Generic[InstanceT]):
    """One call of a definition: the new instance, and the scope that gathers its first nodes."""

    def __init__(
        self,
        definition: object,
        instance_within: Callable[[bytes, Any, CallScope], InstanceT],
        set_scope: Callable[[InstanceT, CallScope], None],
        options: StartOptions | None = None,
        existing: bytes | None = None,
    ) -> None:
        """Make the instance with `instance_within`, which gets a scope for its calls; `set_scope` changes the scope.

        `existing` is the ID of an instance that was started with the same arguments: the entry point runs only for the
        promises that it returns, and nothing is submitted.
        """
        check_attributes(definition)
        self._definition = type(definition)
        if not is_inline():  # otherwise the nodes run in this process
            shipping.ensure_reachable(self._definition, renew(self._definition))
        self._set_scope = set_scope
        self._options = options
        self.instance_id = uuid4() if existing is None else UUID(bytes=existing)
        self.attempt = attempt_scope()
        if existing is not None:
            self.scope = InstanceScope(existing, lambda _: self._keep_calls())
            put = leave_for_submission if self.attempt is None else self.attempt.put_large
            self.scope.constructor = packed(definition, put)
        elif self.attempt is None:
            self.scope = InstanceScope(self.instance_id.bytes, self._hand_over)
            self.scope.constructor = packed(definition, leave_for_submission)
        else:
            self.scope = self.attempt.new_instance(self.instance_id.bytes)
            self.scope.constructor = packed(definition, self.attempt.put_large)
        if options is not None and options.refresh:
            self.scope.refresh = True
        self._hook = None
        if existing is None:
            self._hook = hook_message(definition, HOOK_OF_INSTANCE, self.instance_id.bytes)
        self.instance = instance_within(self.instance_id.bytes, definition, self.scope)

    def running(self) -> AbstractContextManager[None]:
        """Return a context in which the entry point runs: `wait_for` finds its scope there."""
        return running_entry(self.scope, self.attempt)

    def finish(self, result: Any) -> tuple[InstanceT, Any]:
        """Submit the instance; `result` is the result of the entry point, usually a promise."""
        self.scope.launch(class_name(self._definition), self._entry(result), self._options, self._hook)
        return self.instance, result

    async def finish_later(self, entry: Any) -> tuple[InstanceT, Any]:
        """Submit the instance when its async entry point has returned."""
        try:
            with self.running():
                result = await entry
        except BaseException:
            self.scope.close()
            raise
        if self.attempt is not None:
            return self.finish(result)
        return await in_thread(self.finish, result)

    def _hand_over(self, run: NodeBatch) -> None:
        self.scope.close()
        submit(run)
        self._keep_calls()

    def _keep_calls(self) -> None:
        """Let each later call on the instance be submitted by itself."""
        self.scope.close()
        self._set_scope(self.instance, ImmediateScope(None, self.scope.constructor))

    def _entry(self, result: Any) -> bytes | None:
        if not isinstance(result, DAGPromise):
            return None
        if isinstance(result, Outcome):
            self.scope.close()
            raise PromiseMisuse(
                f"the entry point of {class_name(self._definition)} returned the {result!r}: return the "
                "promise, and resolve(instance, outcome(promise)) gives the value or the Failure"
            )
        if result._instance_bytes not in (None, self.instance_id.bytes):
            self.scope.close()
            raise WrongInstance(
                f"the entry point of {class_name(self._definition)} returned a promise of another "
                f"instance: {result!r}; decorate the entry point, so that a worker waits for it"
            )
        return result.node_id


def generate_instance_id() -> UUID:
    """Create an instance without nodes; `DAGInstance(generate_instance_id(), definition)` adds them.

    Programs written for dagorama 0.1.10 import it from `dagorama.definition`.
    """
    instance_id = uuid4()
    InstanceScope(instance_id.bytes).launch("", None)
    return instance_id
