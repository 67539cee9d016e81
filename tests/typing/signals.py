"""`wait_for` is typed as the value, and `send` takes an instance or an ID."""

from dataclasses import dataclass
from typing import Any, assert_type
from uuid import UUID

from dagorama import DAGDefinition, DAGInstance, dagorama, send, wait_for


@dataclass
class Decision:
    yes: bool


class Order(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> str:
        decision = wait_for("approval", Decision, timeout=3 * 86_400)
        assert_type(decision, Decision)
        assert_type(wait_for("number", int), int)
        assert_type(wait_for("number", int, timeout=1, default=3), int)
        assert_type(wait_for("numbers", list[int]), list[int])
        wait_for("number", int, timeout="1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        return self.ship(decision, wait_for("maybe", int | None))

    @dagorama
    def ship(self, decision: Decision, number: Any) -> str:
        return f"{decision} {number}"


def decide(instance: DAGInstance, id: UUID) -> None:
    assert_type(send(instance, "approval", Decision(True)), bool)
    assert_type(send(id, "approval", {"yes": True}, key="a"), bool)
    send(instance, "approval")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
