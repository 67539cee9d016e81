"""Takes the children that running attempts report.

The rule: what user code has given to a call fails the node that called. It never ends the session of the worker, as the
next worker would make the same call.
"""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import BrokerRefusal, InvalidArgument
from dagorama_broker.model.domain import Function
from dagorama_broker.rpc.costs import of_children
from dagorama_broker.rpc.failures import reject
from dagorama_broker.rpc.functions import functions_of
from dagorama_broker.rpc.messages import block_of, functions_named

#: Functions that one report may name.
MOST_FUNCTIONS = 10_000


def check_functions(results: pb.Results) -> None:
    """Raise InvalidArgument, which ends the session, if a report names too many functions."""
    if len(results.functions) > MOST_FUNCTIONS:
        raise InvalidArgument(f"a report names {len(results.functions)} functions; {MOST_FUNCTIONS:,} are allowed")


async def take_children(broker: Broker, session: Session, results: pb.Results, turn: Turn) -> None:
    """Take the children in a report, and fail the nodes whose children cannot be read or are refused."""
    functions = _readable(results.functions)
    for children in results.children:
        await _take(broker, session, children, results.functions, functions)
        if turn.is_over:
            await turn.next()


def _readable(messages: Sequence[pb.Function]) -> Sequence[Function] | None:
    """Return the functions that a report names; None if one of them is refused."""
    try:
        return functions_of(messages)
    except InvalidArgument:
        return None


async def _take(
    broker: Broker,
    session: Session,
    children: pb.Children,
    messages: Sequence[pb.Function],
    functions: Sequence[Function] | None,
) -> None:
    """`messages`: the functions of the report; `functions`: the same, if all of them can be read."""
    key, attempt, worker = children.node, children.attempt, session.worker
    if not broker.scheduler.may_stage(worker, key, attempt, of_children(children.nodes)):
        return  # the refusal of its result will tell why
    try:
        block = block_of(children.nodes, functions_named(children.nodes, messages) if functions is None else functions)
        if not await broker.submissions.report_children(worker, key, attempt, block):
            broker.scheduler.refuse(worker, attempt)
        elif attempt in broker.scheduler.staged_attempts:
            session.staged_since.setdefault(attempt, session.heard_last)
    except BrokerRefusal as refusal:
        reject(broker, worker, key, attempt, refusal, broker.see_time())
