"""Progress, by which a part of the proof is told from one that hangs; how long it takes decides nothing.

A part says each time that it has come to the end of a seed, an example, a cut: `made()`. And what waits for one step,
such as an answer, waits for `patience(...)`: under `make proof` as long as a part may go without any progress.
"""

from __future__ import annotations

import os

#: Seconds without any progress after which a part is taken to hang.
STALLED = 600.0
#: Variables of the environment: a file that grows with each step, and how long one step may take at least.
STEPS, PATIENCE = "PROOF_STEPS", "PROOF_PATIENCE"


def made() -> None:
    """Say that a step has ended; without a proof around this nobody listens."""
    file = os.environ.get(STEPS)
    if file:
        with open(file, "ab") as steps:
            steps.write(b".")


def patience(seconds: float) -> float:
    """How long to wait for one step that takes far less than `seconds` on a machine that has nothing else to do."""
    return max(seconds, float(os.environ.get(PATIENCE, "0")))
