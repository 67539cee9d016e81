"""Draw the transition table: `python -m dagorama_broker.scheduler.table > docs/reference/states.md`."""

from __future__ import annotations

from dagorama_broker.model import ENDED
from dagorama_broker.scheduler.transitions import REASONS, TRANSITIONS

PAGE = """# The states of a node

Drawn from the table in `dagorama_broker/scheduler/transitions.py`; a move that is not here is refused before anything
changes. After an edit: `python -m dagorama_broker.scheduler.table > docs/reference/states.md`.

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
    """Return the content of docs/reference/states.md."""
    return PAGE.format(diagram=mermaid())


if __name__ == "__main__":
    print(page(), end="")
