"""Defines which state may follow which, and why: one table, and its diagram.

`Graph.move` is the only function that assigns a state. `make states` writes docs/reference/states.md with the diagram.
"""

from __future__ import annotations

from dagorama_broker.model.domain import ENDED, State

WAITING, QUEUED, CLAIMED, RESOLVING, BACKOFF, COMPLETED, FAILED, CANCELLED = State

TRANSITIONS: dict[State, frozenset[State]] = {
    WAITING: frozenset({QUEUED, CLAIMED, BACKOFF, COMPLETED, FAILED, CANCELLED}),
    QUEUED: frozenset({CLAIMED, FAILED, CANCELLED}),
    CLAIMED: frozenset({COMPLETED, RESOLVING, BACKOFF, QUEUED, WAITING, FAILED, CANCELLED}),
    RESOLVING: frozenset({COMPLETED, FAILED, CANCELLED}),
    BACKOFF: frozenset({QUEUED, FAILED, CANCELLED}),
    COMPLETED: frozenset({QUEUED, WAITING, RESOLVING}),  # only if a person retries what it was given
    FAILED: frozenset({QUEUED, WAITING, RESOLVING}),  # it has ended: only a person has it go back
    CANCELLED: frozenset(),
}

REASONS: dict[tuple[State, State], str] = {
    (WAITING, QUEUED): "all sources completed",
    (WAITING, CLAIMED): "sent along with all sources it waits for",
    (WAITING, BACKOFF): "all sources completed, its delay begins",
    (WAITING, COMPLETED): "its signal came, it took its default, or its value was cached",
    (WAITING, FAILED): "a source failed, or its signal did not come in time",
    (WAITING, CANCELLED): "cancelled",
    (QUEUED, CLAIMED): "granted to a worker, or restored",
    (QUEUED, FAILED): "queued for too long",
    (QUEUED, CANCELLED): "cancelled",
    (CLAIMED, COMPLETED): "returned a value",
    (CLAIMED, RESOLVING): "returned promises",
    (CLAIMED, BACKOFF): "failed, attempts left; its workers are lost often; or its large values are away",
    (CLAIMED, QUEUED): "worker lost, or returned",
    (CLAIMED, WAITING): "a source it was sent along with has no value for it, or another node computes the same",
    (CLAIMED, FAILED): "failed, no attempts left",
    (CLAIMED, CANCELLED): "cancelled",
    (RESOLVING, COMPLETED): "its promises are kept",
    (RESOLVING, FAILED): "a promised node failed",
    (RESOLVING, CANCELLED): "cancelled",
    (BACKOFF, QUEUED): "its time has come",
    (BACKOFF, FAILED): "no attempts left",
    (BACKOFF, CANCELLED): "cancelled",
    (COMPLETED, QUEUED): "a failure that it was given has been retried downstream, and its sources have ended",
    (COMPLETED, WAITING): "what it was given is retried downstream",
    (COMPLETED, RESOLVING): "a node that its value names is retried downstream",
    (FAILED, QUEUED): "retried by a person",
    (FAILED, WAITING): "what it failed because of is retried",
    (FAILED, RESOLVING): "what it failed because of is retried, and it has its value",
}

PAGE = """# The states of a node

Drawn from the table in `dagorama_broker/scheduler/transitions.py`; a move that is not here is refused before anything
changes. After an edit: `make states`.

```mermaid
{diagram}```
"""


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> WAITING: has sources", "    [*] --> QUEUED: has none"]
    for state, nexts in TRANSITIONS.items():
        lines += [f"    {state.name} --> {to.name}: {REASONS[state, to]}" for to in sorted(nexts)]
        if state in ENDED:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the text of docs/reference/states.md."""
    return PAGE.format(diagram=mermaid())
