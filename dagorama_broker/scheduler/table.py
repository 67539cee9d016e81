"""The moves that a node may make. One table; `Graph.move` is the one function that assigns a state."""

from __future__ import annotations

from dagorama_broker.model import State

TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.CLAIMED, State.FAILED, State.CANCELLED}),
    State.CLAIMED: frozenset(
        {State.COMPLETED, State.RESOLVING, State.BACKOFF, State.QUEUED, State.FAILED, State.CANCELLED}
    ),
    State.RESOLVING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.BACKOFF: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

# Why each move is made, for the diagram in docs/ and for people.
REASONS: dict[tuple[State, State], str] = {
    (State.WAITING, State.QUEUED): "all sources completed",
    (State.WAITING, State.FAILED): "a source failed",
    (State.WAITING, State.CANCELLED): "cancelled",
    (State.QUEUED, State.CLAIMED): "granted to a worker, or adopted",
    (State.QUEUED, State.FAILED): "nobody may run it any more",
    (State.QUEUED, State.CANCELLED): "cancelled",
    (State.CLAIMED, State.COMPLETED): "returned a value",
    (State.CLAIMED, State.RESOLVING): "returned promises",
    (State.CLAIMED, State.BACKOFF): "failed, attempts left",
    (State.CLAIMED, State.QUEUED): "worker lost, or given back",
    (State.CLAIMED, State.FAILED): "failed, no attempts left",
    (State.CLAIMED, State.CANCELLED): "cancelled",
    (State.RESOLVING, State.COMPLETED): "its promises are kept",
    (State.RESOLVING, State.FAILED): "a promised node failed",
    (State.RESOLVING, State.CANCELLED): "cancelled",
    (State.BACKOFF, State.QUEUED): "its time has come",
    (State.BACKOFF, State.FAILED): "no attempts left",
    (State.BACKOFF, State.CANCELLED): "cancelled",
}


def mermaid() -> str:
    """The table as a Mermaid state diagram, as docs/states.md holds it."""
    lines = ["stateDiagram-v2", "    [*] --> WAITING: has sources", "    [*] --> QUEUED: has none"]
    for state, nexts in TRANSITIONS.items():
        lines += [f"    {state.name} --> {to.name}: {REASONS[state, to]}" for to in sorted(nexts)]
        if not nexts:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines) + "\n"
