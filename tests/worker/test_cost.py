"""Count the function calls for each node in the process that runs it, and for each child node in its parent's process.

There is no clock: grants are read and outcomes are written in this process, as a child does it. If a change needs more
calls, a test fails. If a change needs fewer, write down the new figure.
"""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns

import dagorama
from dagorama.worker.child.call import Call
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.spool_files import SpoolValues
from tests.support.counting import calls
from tests.support.worker_grants import Wanted, body_of, call

NODES = 2_000
#: Calls for each node that runs, and for each that is made, as counted last.
RUN, MADE = 27.1, 15.1
MORE = 1.02  #: what is done once for a message is spread over its nodes


def executor_in(folder: Path) -> Executor:
    def drop(kind: Kind, outcome: Outcome) -> None:
        """Send nothing."""

    return Executor(Outbox(drop), SpoolValues(folder))


def cost(executor: Executor, wanted: Sequence[Wanted]) -> int:
    """Return the calls from reading a grant until all outcomes are sent, after one node has found the function."""
    bodies = [body_of(each, None, None).SerializeToString() for each in (wanted[:1], wanted)]

    def run(granted: Sequence[Call]) -> None:
        for each in granted:
            executor.run(each, monotonic_ns())
        executor.outbox.flush()

    run(executor.prepare(bodies[0]))
    count, _ = calls(dagorama, lambda body: run(executor.prepare(body)), bodies[1])
    return count


def test_a_node_costs_no_more_calls_than_were_counted_last(tmp_path: Path) -> None:
    each = cost(executor_in(tmp_path), [call("echo", number) for number in range(NODES)]) / NODES
    assert each <= RUN * MORE, each


def test_a_child_node_costs_no_more_calls_than_were_counted_last(tmp_path: Path) -> None:
    each = cost(executor_in(tmp_path), [call("many", NODES, 1)]) / NODES
    assert each <= MADE * MORE, each
