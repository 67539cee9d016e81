"""How much memory a message takes when it has been taken in, before anything is built from it.

Bytes on the wire say little: a reference of one byte becomes pointers and numbers. What a message becomes is estimated
from its size and from the lengths of its columns, which protobuf knows without looking at the entries.
"""

from __future__ import annotations

from collections.abc import Sized

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.turns import Turn
from dagorama_broker.errors import Malformed
from dagorama_broker.scheduler.staged_children import staged_cost

#: Bytes that each takes beside its content, from the message to the commit.
MESSAGE, FUNCTION, RUN, NODE, REFERENCE, ID = 500, 600, 1_500, 1_000, 60, 120
#: Bytes that a node takes which somebody waits for, beside the node itself.
AWAITED = 450
#: Bytes of a call that waits for something.
WAIT = 2_000
#: Bytes that a function, and a run of nodes, have in a message at least.
LEAST_FUNCTION, LEAST_RUN = 5, 34
#: Runs of nodes that are gone through in one go.
FEW_RUNS = 1_000
#: Content is in the message and in the record that is made from it.
COPIES = 2


def check_entries(request: pb.SubmitRequest) -> None:
    """Raise Malformed if a message has more functions or runs of nodes than fit into its bytes with what each needs."""
    if request.ByteSize() < LEAST_RUN * len(request.nodes) + LEAST_FUNCTION * len(request.functions):
        raise Malformed(
            f"a message of {request.ByteSize()} bytes has {len(request.functions)} functions and {len(request.nodes)}"
            " runs of nodes: some have no name, or no instance and origin"
        )


async def of_submission(request: pb.SubmitRequest) -> int:
    """Bytes of a submission, or of one message of it, while it is taken in. Raises Malformed."""
    check_entries(request)
    turn, cost = Turn(), _outer(request)
    for nodes in request.nodes:
        cost += _of_columns(nodes)
        if turn.is_over:
            await turn.next()
    return cost


def of_small_submission(request: pb.SubmitRequest) -> int | None:
    """The same without awaiting anything; None: it is not small."""
    if len(request.nodes) > FEW_RUNS:
        return None
    check_entries(request)
    return _outer(request) + sum(map(_of_columns, request.nodes))


def _outer(request: pb.SubmitRequest) -> int:
    outer = FUNCTION * len(request.functions) + RUN * len(request.nodes)
    return MESSAGE + COPIES * request.ByteSize() + outer


def _of_columns(nodes: pb.Nodes) -> int:
    count = max(len(nodes.function), len(nodes.arguments))
    ids = len(nodes.foreign) + len(nodes.keys) + len(nodes.large)
    numbers = len(nodes.source) + len(nodes.tolerant) + len(nodes.source_count) + len(nodes.key)
    return NODE * count + REFERENCE * numbers + ID * ids


def of_wait(request: pb.WaitRequest) -> int:
    """Bytes of a wait for as long as it lasts."""
    return WAIT + ID * len(request.instances) + AWAITED * len(request.node)


def of_ids(ids: Sized) -> int:
    """Bytes of a list of ids of nodes that a call is about."""
    return AWAITED * len(ids)


def of_children(nodes: pb.Nodes) -> int:
    """Bytes of children of an attempt, as they are kept until it has an outcome, while they are still a message."""
    ids = len(nodes.foreign) + len(nodes.keys) + len(nodes.large)
    return staged_cost(len(nodes.function), len(nodes.source) + len(nodes.tolerant), ids, nodes.ByteSize())
