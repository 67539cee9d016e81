"""One node: its state and why, its attempts, its logs, and the nodes around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import is_hook
from dagorama.errors import FailedAttempt, NotFound
from dagorama.models.state import State
from dagorama.values.json_shown import promised_nodes, shown_arguments, shown_result
from dagorama_dashboard.pages.instance import instance_id, ordinals
from dagorama_dashboard.pages.signals import fields_of
from dagorama_dashboard.shown.formats import duration
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

#: Sources that are named.
MOST_SOURCES = 50


class Attempt(NamedTuple):
    """An attempt, as far as it is known."""

    number: int
    type: str
    message: str
    traceback: str
    ended: float  #: seconds since 1970
    microseconds: int
    worker: str

    @property
    def address(self) -> str:
        """A sentence with the address of its documentation, if it is an error of dagorama."""
        return FailedAttempt(self.type, self.message, self.traceback).address


class Place(NamedTuple):
    """A node, as the path names it."""

    instance: bytes
    node: bytes
    number: int  #: its ordinal


async def place_of(look: Look) -> Place:
    """Return the node in the path. Raises NotFound."""
    instance, text = instance_id(look), look.request.path_params["node"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
    if not number:
        raise NotFound(f"the instance {UUID(bytes=instance)} has no node {text[:100]!r}")
    reply = await look.ask("FindIds", pb.FindIdsRequest(instance=instance.hex(), node=[f"/{number}"]))
    return Place(instance, reply.node[0], number)


async def node(look: Look) -> Content:
    """Return the page of a node."""
    instance, id, number = await place_of(look)
    sees_values = look.may("Wait")
    details, why = await asyncio.gather(
        look.ask("GetNode", pb.GetNodeRequest(instance=instance, node=id, arguments=sees_values, value=sees_values)),
        look.ask("ExplainNode", pb.ExplainNodeRequest(instance=instance, node=id)),
    )
    info: pb.NodeInfo = details.info
    sources = list(info.sources[:MOST_SOURCES])
    near = {*sources, info.creator, info.root_cause, *(n for reason in why.reasons for n in reason.node)}
    near |= set(promised_nodes(details.value))
    near |= {cause.node for cause in why.causes} | {n for cause in why.causes for r in cause.reasons for n in r.node}
    names = await ordinals(look, {each for each in near if each})

    def name(source: bytes) -> str:
        return f"{names[source]}" if source in names else f"{UUID(bytes=source)}"

    arguments, value = shown_arguments(details.arguments, name), shown_result(details.value, name)
    return Content(
        "node.html",
        f"{info.function.name.rpartition(':')[2]} {instance.hex()[:8]}/{number}",
        {
            "id": f"{UUID(bytes=instance)}", "number": number, "info": info, "details": details, "why": why,
            "is_hook": is_hook(instance, id),
            "is_done": State(info.state) is State.COMPLETED,
            "names": names, "sources": sources, "attempts": attempts_of(details),
            "is_running": State(info.state) is State.CLAIMED, "has_ended": info.state >= State.COMPLETED,
            "signal_fields": fields_of(info.signal.schema), "signal_key": f"page {look.mark}",
            "rules": rules_of(info.function), "shown_arguments": arguments, "shown_value": value,
        },
        section="instances",
    )  # fmt: skip


def rules_of(function: pb.Function) -> list[tuple[str, str]]:
    """Return the names and values of the rules that the decorator of a function has set."""
    rules = [
        ("attempts at most", f"{function.retry.max_attempts}" if function.retry.max_attempts else ""),
        ("time limit", duration(function.timeout) if function.timeout else ""),
        ("queued at most", duration(function.queue_timeout) if function.queue_timeout else ""),
        ("runs at once, at most", f"{function.max_concurrency}" if function.max_concurrency else ""),
        ("starts, at most", _rate(function.rate, " for each key" if function.rate_by_key else "")),
        ("limit", _limit(function.limit)),
        ("delay", duration(function.delay) if function.delay else ""),
        ("cached", (duration(function.cache_ttl) if function.cache_ttl else "yes") if function.cached else ""),
        ("priority", f"{function.priority}" if function.priority else ""),
    ]
    return [(name, value) for name, value in rules if value]


def _rate(rate: pb.Rate, of: str = "") -> str:
    return f"{rate.starts} per {rate.seconds:g} s{of}" if rate.starts else ""


def _limit(limit: pb.SharedLimit) -> str:
    """Return the name of a shared limit and what the function declares it to be."""
    at_once = f"{limit.max_concurrency} at once" if limit.max_concurrency else ""
    return ": ".join(filter(None, [limit.name, ", ".join(filter(None, [_rate(limit.rate), at_once]))]))


def attempts_of(details: pb.NodeDetails) -> list[Attempt]:
    """Return the failed attempts of a node that are kept, the latest first."""
    if not details.HasField("failure") or details.info.root_cause:
        return []
    last = details.failure
    each: Sequence[pb.EarlierFailure | pb.NodeFailure] = [*last.earlier, last]
    first = max(1, details.info.failed_attempts - len(each) + 1)
    found = [
        Attempt(number, one.type, one.message, one.traceback, one.ended, one.microseconds, one.worker)
        for number, one in enumerate(each, first)
    ]
    return found[::-1]


async def by_id(look: Look) -> Response:
    """Return the way from the ID of a node to its page."""
    text = look.request.path_params["node"]
    try:
        id = UUID(text).bytes
    except ValueError:
        raise NotFound(f"{text!r} is not the ID of a node") from None
    reply = await look.ask("NameNodes", pb.NameNodesRequest(node=[id]))
    if not reply.names:
        raise NotFound(f"the broker knows no node {text}")
    (name,) = reply.names
    return RedirectResponse(f"/instances/{UUID(bytes=name.instance)}/{name.ordinal}")


async def stack(look: Look) -> Content:
    """Return where a running node stands."""
    instance, id, number = await place_of(look)
    found = await look.ask("GetStack", pb.GetStackRequest(instance=instance, node=id))
    return Content(
        "stack.html",
        f"Stack of {instance.hex()[:8]}/{number}",
        {"id": f"{UUID(bytes=instance)}", "number": number, "found": found},
        is_live=False,
        section="instances",
    )
