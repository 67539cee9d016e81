"""Actions of people. Each action is confirmed on a page that names what it changes, and then posted.

The rule: the broker decides whether the token allows it, and what it has changed is told on the next page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar
from uuid import UUID

from starlette.responses import Response

from dagorama.api import broker_pb2 as pb
from dagorama.client import rebind as signing
from dagorama.client.control import retried_of
from dagorama.client.display.tables import pluralize
from dagorama.errors import BrokerError, DagoramaError, NotFound, RequestRejected
from dagorama_dashboard.pages.action_kinds import ACTIONS
from dagorama_dashboard.pages.failure_group import NamedGroup, group_in, nodes_of_group
from dagorama_dashboard.pages.instances import search_of
from dagorama_dashboard.pages.login import own_path
from dagorama_dashboard.pages.operation import whole_status
from dagorama_dashboard.web.forms import Form, form_of, parsed
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

T = TypeVar("T")

#: Instances that one action changes at most, and at once.
MOST_INSTANCES, AT_ONCE = 10_000, 8
#: Actions on a page of the history.
ON_PAGE = 100
#: Seconds that a large action may take, and that the broker waits for workers to report other code.
ACTION_SECONDS, CODE_SECONDS = 60.0, 1.0


class Target(NamedTuple):
    """The subject of an action, from a form or an address."""

    action: str
    instances: tuple[bytes, ...] = ()
    node: bytes = b""
    name: str = ""  #: of a queue, a function or a schedule; the hexadecimal ID of a worker
    search: str = ""  #: all instances that match
    state: str = ""
    is_search: bool = False
    group: NamedGroup | None = None  #: of these instances, only the failed nodes of this group


def _target(fields: Form) -> Target:
    action = fields.get("action")
    if action not in ACTIONS:
        raise RequestRejected(f"there is no action {action!r}")
    try:
        instances = tuple(UUID(text).bytes for text in dict.fromkeys(fields.all("id")))
        node = UUID(fields.get("node")).bytes if fields.get("node") else b""
    except ValueError:
        raise RequestRejected("an ID in the request is not one of an instance or a node") from None
    return Target(
        action, instances, node, fields.get("name"), fields.get("q"), fields.get("state"), bool(fields.get("all")),
        group_in(fields),
    )  # fmt: skip


async def history(look: Look) -> Content:
    """Return what people have done, the latest first."""
    asked = pb.ListActionsRequest(limit=ON_PAGE, before=look.number("before"))
    found = await look.ask("ListActions", asked)
    return Content("actions.html", "Actions", {"found": found}, section="actions")


async def confirm(look: Look) -> Content:
    """Return the page that names what an action would change."""
    query = parsed(look.request.url.query)
    target = _target(query)
    action = ACTIONS[target.action]
    count = await _count(look, target)
    return Content(
        "confirm.html",
        action.title,
        {
            "action": action, "target": target, "subject": await _subject(look, target, count), "count": count,
            "is_empty": count == 0 and (target.is_search or not (target.name or target.instances)),
            "goal": own_path(query.get("next", "/")), "ids": [f"{UUID(bytes=id)}" for id in target.instances],
            "node_id": f"{UUID(bytes=target.node)}" if target.node else "", "most": MOST_INSTANCES,
        },
        is_live=False,
    )  # fmt: skip


async def _count(look: Look, target: Target) -> int:
    if not target.is_search:
        return len(target.instances)
    return len(await _matching(look, target))


async def _matching(look: Look, target: Target) -> list[pb.InstanceInfo]:
    """Return the instances of a search that the action can change."""
    search = search_of(target.search, target.state)
    if search.digits:
        raise RequestRejected("an ID names one instance: choose it in the list")
    found: list[pb.InstanceInfo] = []
    search.request.limit = 1_000
    while True:
        reply = await look.ask("ListInstances", search.request)
        found += [info for info in reply.instances if _fits(target.action, info)]
        if not reply.more or len(found) >= MOST_INSTANCES:
            return found[:MOST_INSTANCES]
        search.request.before = reply.more


def _fits(action: str, info: pb.InstanceInfo) -> bool:
    if action == "delete":
        return bool(info.ended)
    return bool(info.failed) if action.startswith("retry") else not info.ended


async def _subject(look: Look, target: Target, count: int) -> str:
    if target.action in ("pause", "resume"):
        return f"the queue {target.name or 'without a name'}"
    if target.action.endswith("-schedule"):
        return f"the schedule {target.name}"
    if target.action == "rebind":
        return f"the nodes of {target.name}"
    if target.action == "drain":
        return f"the worker {await _worker_name(look, target.name)}"
    if target.node:
        return f"one node of the instance {UUID(bytes=target.instances[0])}" if target.instances else "one node"
    if target.is_search:
        what = f" that match {target.search!r}" if target.search else ""
        instances = pluralize(count, "instance", "instances")
        return f"the nodes that failed with {target.group.text!r} in {instances}" if target.group else instances + what
    if len(target.instances) != 1:
        return pluralize(len(target.instances), "instance", "instances")
    info = await look.ask("GetInstance", pb.GetInstanceRequest(instance=target.instances[0]))
    size = f"{info.unfinished:,} of {info.nodes:,} nodes unfinished" if not info.ended else f"{info.nodes:,} nodes"
    return f"{info.definition.rpartition(':')[2]} {info.instance.hex()[:8]}, {size}"


async def perform(look: Look) -> Response:
    """Do what a form asks for, and go back to the page that it came from."""
    form = await form_of(look.request)
    target, goal = _target(form), own_path(form.get("next", "/"))
    try:
        notice = await _PERFORMERS[target.action](look, target)
    except DagoramaError as error:
        return look.back(goal, f"{error}", is_error=True)
    return look.back(goal if target.action != "delete" or "/instances/" not in goal else "/instances", notice)


async def _cancel(look: Look, target: Target) -> str:
    if target.node:
        reply = await look.viewer.ask("Cancel", pb.CancelRequest(instance=_one(target), node=[target.node]))
        return f"{pluralize(reply.cancelled, 'node', 'nodes')} cancelled"

    async def cancel(id: bytes) -> int:
        reply = await look.viewer.ask("Cancel", pb.CancelRequest(instance=id), ACTION_SECONDS)
        return int(reply.cancelled)

    done = await _each(look, target, cancel)
    return f"{pluralize(sum(done), 'node', 'nodes')} of {pluralize(len(done), 'instance', 'instances')} cancelled"


async def _retry(look: Look, target: Target) -> str:
    new_code = target.action == "retry-new-code"
    if new_code:
        _require_new_code(look)

    async def retry(id: bytes) -> tuple[int, list[str]]:
        asked = pb.RetryRequest(instance=id, new_code=new_code, patience=CODE_SECONDS)
        if target.node:
            asked.node.append(target.node)
        if target.group:
            asked.node.extend(await nodes_of_group(look, target.group, target.search, id))
            if not asked.node:  # they run again already; a request that names none means all
                return 0, []
        if new_code:
            retried = retried_of(await look.viewer.in_thread(signing.retry, asked))
        else:
            retried = retried_of(await look.viewer.ask("Retry", asked, ACTION_SECONDS))
        return int(retried), retried.warnings

    done = await _each(look, target, retry)
    nodes = sum(count for count, _ in done)
    warnings = list(dict.fromkeys(warning for _, some in done for warning in some))
    text = f"{pluralize(nodes, 'node runs or waits', 'nodes run or wait')} again" if nodes else "Nothing to retry"
    return ". ".join([text, *warnings[:3]])


async def _wait_again(look: Look, target: Target) -> str:
    if not target.node:
        raise RequestRejected("the request names no node that could wait again")
    asked = pb.RetryRequest(instance=_one(target), node=[target.node], downstream=True, look=True)
    asked.waits.extend((await look.viewer.ask("Retry", asked)).waits)
    if not asked.waits:
        return "Nothing to retry: the node has received no signal"
    asked.look = False
    await look.viewer.ask("Retry", asked, ACTION_SECONDS)
    return "The node waits for another signal"


async def _rebind(look: Look, target: Target) -> str:
    _require_new_code(look)
    reply, _ = await look.viewer.in_thread(signing.rebind, pb.RebindRequest(function=target.name))
    text = f"{pluralize(reply.rebound, 'node runs', 'nodes run')} with the deployed code"
    left = [
        f"{pluralize(each.queued, 'node', 'nodes')} still cannot run: {each.reason}" for each in reply.unschedulable
    ]
    return ". ".join([text, *left[:3]])


def _require_new_code(look: Look) -> None:
    if not look.site.settings.new_code:
        raise RequestRejected("this dashboard was not started with --new-code")


async def _delete(look: Look, target: Target) -> str:
    async def delete(id: bytes) -> int:
        reply = await look.viewer.ask("Delete", pb.DeleteRequest(instance=id), ACTION_SECONDS)
        return int(reply.nodes)

    done = await _each(look, target, delete)
    return f"{pluralize(len(done), 'instance', 'instances')} deleted, with {pluralize(sum(done), 'node', 'nodes')}"


async def _drain(look: Look, target: Target) -> str:
    try:
        worker = bytes.fromhex(target.name)
    except ValueError:
        raise RequestRejected(f"{target.name!r} is not the ID of a worker") from None
    reply = await look.ask("DrainWorker", pb.DrainWorkerRequest(worker=worker))
    return f"{reply.name} finishes {pluralize(reply.held, 'node', 'nodes')} and leaves"


async def _pause(look: Look, target: Target) -> str:
    resume = target.action == "resume"
    reply = await look.ask("PauseQueue", pb.PauseQueueRequest(queue=target.name, resume=resume))
    what = "runs" if resume else "is paused"
    return f"The queue {target.name} {what}{'' if reply.changed else ' already'}: {reply.queued:,} queued"


async def _change_schedule(look: Look, target: Target) -> str:
    id, resume = target.name, target.action == "resume-schedule"
    if target.action == "remove-schedule":
        await look.ask("RemoveSchedule", pb.RemoveScheduleRequest(id=id))
        return f"The schedule {id} is removed"
    reply = await look.ask("PauseSchedule", pb.PauseScheduleRequest(id=id, resume=resume))
    state = "goes on" if resume else "is paused"
    return f"The schedule {id} {state}{'' if reply.changed else ' already'}"


_PERFORMERS: dict[str, Callable[[Look, Target], Awaitable[str]]] = {
    "cancel": _cancel, "retry": _retry, "retry-new-code": _retry, "wait-again": _wait_again, "delete": _delete,
    "drain": _drain, "rebind": _rebind, "pause": _pause, "resume": _pause, "pause-schedule": _change_schedule,
    "resume-schedule": _change_schedule, "remove-schedule": _change_schedule,
}  # fmt: skip


async def _worker_name(look: Look, id: str) -> str:
    """Return the name of a connected worker with this ID, or the ID."""
    status = await whole_status(look)
    return next((worker.name for worker in status.workers if worker.worker.hex() == id), id)


def _one(target: Target) -> bytes:
    if len(target.instances) != 1:
        raise RequestRejected("the request names a node, but not the instance that it belongs to")
    return target.instances[0]


async def _each(look: Look, target: Target, act: Callable[[bytes], Awaitable[T]]) -> list[T]:
    """Do something to each instance, also if the broker refuses it for some. Raises the first error, with a count."""
    ids = target.instances
    if target.is_search:
        ids = tuple(info.instance for info in await _matching(look, target))
    if not ids:
        raise RequestRejected("no instance was chosen")
    done: list[T] = []
    refused: list[BaseException] = []
    for start in range(0, len(ids), AT_ONCE):
        results = await asyncio.gather(*map(act, ids[start : start + AT_ONCE]), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        done += [result for result in results if not isinstance(result, BaseException)]
        refused += errors
        if not all(isinstance(error, RequestRejected | NotFound) for error in errors):
            break  # the next instances would fare no better
    if refused:
        if not isinstance(refused[0], BrokerError) or len(ids) == 1:
            raise refused[0]
        raise RequestRejected(f"{len(done):,} of {len(ids):,} instances were done. The first problem: {refused[0]}")
    return done
