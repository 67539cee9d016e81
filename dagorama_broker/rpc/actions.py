"""Answers to ListActions: the latest actions of people and programs."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.actions import StoredAction
from dagorama_broker.model.maps import LAST_KEY
from dagorama_broker.rpc.fields import fitting
from dagorama_broker.rpc.inspect import LARGEST_PAGE, PAGE


async def list_actions(broker: Broker, request: pb.ListActionsRequest) -> pb.ListActionsReply:
    """Return a page of actions, the latest first."""
    before = min(request.before, LAST_KEY) or LAST_KEY
    await broker.commits.wait_durable()
    limit = min(request.limit or PAGE, LARGEST_PAGE)
    found = await broker.commits.in_view(broker.store.view.list_actions, before, limit)
    messages = list(map(_message, found.actions))
    fits = fitting(messages)
    more = found.more if len(fits) == len(messages) else fits[-1].number
    return pb.ListActionsReply(actions=fits, more=more, total=0 if request.before else found.total)


def _message(stored: StoredAction) -> pb.Action:
    row = stored.row
    return pb.Action(
        number=stored.number,
        time=row.time,
        by=row.by,
        action=row.action,
        instance=row.instance,
        target=row.target,
        count=row.nodes,
    )
