"""Reads schedules from messages, carries out what people ask of them, and lists them."""

from __future__ import annotations

import logging
from unicodedata import category

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import JSON, LARGEST_SCHEDULED, LONGEST_SCHEDULE
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.calendar import check_times
from dagorama_broker.engine.schedules import Upcoming
from dagorama_broker.errors import InvalidArgument, NotFound
from dagorama_broker.model.schedules import (
    CatchUp,
    Overlap,
    ScheduleRow,
    packed_function,
    unpacked_fair,
    unpacked_function,
)
from dagorama_broker.rpc.fields import check_name, check_plain, check_text, fitting
from dagorama_broker.rpc.functions import function_of, hook_of
from dagorama_broker.rpc.inspect import LARGEST_PAGE, PAGE, info_of
from dagorama_broker.rpc.marks import LONGEST_DIGEST, checked_fair
from dagorama_broker.rpc.permissions import caller_name
from dagorama_broker.scheduler import Explainer

log = logging.getLogger("dagorama_broker")


async def put_schedule(broker: Broker, request: pb.PutScheduleRequest) -> pb.PutScheduleReply:
    """Add a schedule or replace it. Raise InvalidArgument or ResourceExhausted."""
    row = _row(request)
    check_times(row.times)
    found = await broker.schedules.put(row)
    log.info("schedule %r was put%s", row.name, f" by {row.by}" if row.by else "")
    return pb.PutScheduleReply(next=found.next, paused=found.row.paused)


def _row(request: pb.PutScheduleRequest) -> ScheduleRow:
    if len(request.digest) > LONGEST_DIGEST:
        raise InvalidArgument(f"the digest of a schedule has {len(request.digest)} bytes; {LONGEST_DIGEST} are allowed")
    return ScheduleRow(
        name=_printable(_checked_id(request.id)),
        definition=check_name(request.definition, "the name of a definition", 1),
        function=packed_function(
            function_of(request.function),
            hook_of(request.hook) if request.HasField("hook") else None,
            checked_fair(request.fair),
        ),
        arguments=check_plain(request.arguments, "a schedule", LARGEST_SCHEDULED, JSON),
        cron=check_name(request.cron, "a cron expression"),
        zone=check_name(request.zone, "the name of a time zone") or "UTC",
        every=request.every,
        start=0.0,
        overlap=_one_of(Overlap, request.overlap, "overlap"),
        catch_up=_one_of(CatchUp, request.catch_up, "catch_up"),
        paused=False,
        fired=0.0,
        digest=request.digest,
        key=check_name(request.key, "a concurrency key"),  # empty: there is none
        by=caller_name(),
    )


def _checked_id(id: str) -> str:
    if not 0 < len(id) <= LONGEST_SCHEDULE:
        raise InvalidArgument(f"the ID of a schedule has {len(id)} characters; 1 to {LONGEST_SCHEDULE} are allowed")
    return check_text(id, "the ID of a schedule")


def _printable(id: str) -> str:
    """Return the ID of a new schedule. Earlier ones may not be printable, and are still listed and removed."""
    if not id.strip() or any(category(each) in ("Cc", "Zl", "Zp") for each in id):
        raise InvalidArgument(
            f"the ID of a schedule is {id!r}: it must have a character that can be seen, and neither line breaks nor"
            " control characters"
        )
    return id


def _one_of(rules: type[Overlap | CatchUp], word: str, what: str) -> str:
    """Return a rule as it came, or the first one if there is none."""
    words = [str(rule) for rule in rules]
    if word and word not in words:
        raise InvalidArgument(f"the rule {what} of a schedule is {word!r}: it must be one of {', '.join(words)}")
    return word or words[0]


async def remove_schedule(broker: Broker, request: pb.RemoveScheduleRequest) -> pb.RemoveScheduleReply:
    """Remove a schedule. Raise NotFound or InvalidArgument."""
    name, by = _checked_id(request.id), caller_name()
    await broker.schedules.remove(name, by)
    log.info("schedule %r was removed%s", name, f" by {by}" if by else "")
    return pb.RemoveScheduleReply()


async def pause_schedule(broker: Broker, request: pb.PauseScheduleRequest) -> pb.PauseScheduleReply:
    """Pause a schedule or let it go on. Raise NotFound or InvalidArgument."""
    name, by = _checked_id(request.id), caller_name()
    changed = await broker.schedules.pause(name, not request.resume, by)
    if changed:
        done = "resumed" if request.resume else "paused"
        log.info("schedule %r was %s%s", name, done, f" by {by}" if by else "")
    found = [each.next for each in broker.schedules.upcoming() if each.row.name == name]
    return pb.PauseScheduleReply(changed=changed, next=found[0] if found else 0.0)


async def list_schedules(broker: Broker, request: pb.ListSchedulesRequest) -> pb.ListSchedulesReply:
    """Return a page of schedules. Raise NotFound if the only one that is asked for does not exist."""
    check_name(request.id, "the ID of a schedule")
    check_name(request.after, "the ID of a schedule")
    await broker.commits.wait_durable()
    found = [each for each in broker.schedules.upcoming() if each.row.name > request.after]
    if request.id:
        found = [each for each in found if each.row.name == request.id]
        if not found:
            raise NotFound(f"there is no schedule {request.id!r}")
    limit = min(request.limit or PAGE, LARGEST_PAGE)
    explainer = broker.scheduler.explainer()
    fits = fitting([await _message(broker, each, explainer) for each in found[:limit]])
    return pb.ListSchedulesReply(schedules=fits, more=fits[-1].id if len(fits) < len(found) else "")


async def _message(broker: Broker, upcoming: Upcoming, explainer: Explainer) -> pb.ScheduleInfo:
    row, instance = upcoming.row, None
    if row.instance:
        with broker.lookups.holds.on(row.instance):
            stored = await broker.commits.in_view(broker.store.view.instance, row.instance)
            instance = await info_of(broker, stored, explainer) if stored is not None else None
    return pb.ScheduleInfo(
        id=row.name,
        definition=row.definition,
        function=unpacked_function(row.function).name,
        cron=row.cron,
        zone=row.zone,
        every=row.every,
        overlap=row.overlap,
        catch_up=row.catch_up,
        paused=row.paused,
        next=upcoming.next,
        last=row.last,
        instance=instance,
        waiting=row.waiting,
        missed=int(row.missed),
        uncounted=row.uncounted,
        missed_at=row.missed_at,
        put=row.put,
        by=row.by,
        fair=unpacked_fair(row.function),
        stuck=upcoming.stuck,
    )
