"""Estimates the memory that a request takes, before anything is built from its message.

The size on the wire says little: a reference of one byte becomes pointers and numbers. The estimate uses the lengths of
the columns, which protobuf knows without looking at the entries.
"""

from __future__ import annotations

from collections.abc import Sized

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.turns import Turn
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.scheduler import DELAY, staged_cost

#: Bytes that each takes in addition to its content, from the message to the commit.
MESSAGE, FUNCTION, RUN, NODE, REFERENCE, ID = 500, 600, 1_500, 1_000, 60, 120
#: Bytes that waiting for a node takes.
AWAITED = 450
#: Bytes of a call that waits.
WAIT = 2_000
#: Smallest bytes of a function, and of a block of nodes, in a message.
LEAST_FUNCTION, LEAST_RUN = 5, 34
#: Blocks of nodes up to which a message is estimated without a pause.
FEW_RUNS = 1_000
#: Content is in the message and in the record that is made from it.
COPIES = 2


def check_entries(request: pb.SubmitRequest) -> None:
    """Raise InvalidArgument if a message has more functions or blocks of nodes than its bytes can hold."""
    if request.ByteSize() < LEAST_RUN * len(request.nodes) + LEAST_FUNCTION * len(request.functions):
        raise InvalidArgument(
            f"a message of {request.ByteSize()} bytes has {len(request.functions)} functions and {len(request.nodes)}"
            " blocks of nodes: some have no name, or no instance and origin"
        )


async def of_submission(request: pb.SubmitRequest) -> int:
    """Return the bytes that a message of a submission takes. Raises InvalidArgument."""
    check_entries(request)
    turn, cost = Turn(), _outer(request)
    for nodes in request.nodes:
        cost += _of_columns(nodes)
        if turn.is_over:
            await turn.next()
    return cost


def of_small_submission(request: pb.SubmitRequest) -> int | None:
    """Return the bytes that a small submission takes; None: it is not small. Raises InvalidArgument."""
    if len(request.nodes) > FEW_RUNS:
        return None
    check_entries(request)
    return _outer(request) + sum(map(_of_columns, request.nodes))


def _outer(request: pb.SubmitRequest) -> int:
    outer = FUNCTION * len(request.functions) + RUN * len(request.nodes)
    return MESSAGE + COPIES * request.ByteSize() + outer


def _of_columns(nodes: pb.Nodes) -> int:
    count = max(len(nodes.function), len(nodes.arguments))
    numbers = len(nodes.source) + len(nodes.tolerant) + len(nodes.source_count) + len(nodes.key)
    return NODE * count + REFERENCE * numbers + ID * _ids(nodes) + DELAY * len(nodes.delayed)


def _ids(nodes: pb.Nodes) -> int:
    """Return the number of IDs, keys and hashes in the columns of a block."""
    return len(nodes.foreign) + len(nodes.keys) + len(nodes.large) + 2 * len(nodes.cache_key)


def of_wait(request: pb.WaitRequest) -> int:
    """Return the bytes that a wait takes as long as it lasts."""
    return WAIT + ID * len(request.instances) + AWAITED * len(request.node)


def of_ids(ids: Sized) -> int:
    """Return the bytes that the IDs of nodes in a request take."""
    return AWAITED * len(ids)


def of_children(nodes: pb.Nodes) -> int:
    """Return the bytes that children of an attempt will take while they are staged."""
    size = nodes.ByteSize() + DELAY * len(nodes.delayed)
    return staged_cost(len(nodes.function), len(nodes.source) + len(nodes.tolerant), _ids(nodes), size)
