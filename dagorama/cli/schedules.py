"""Commands about schedules: list them, explain, pause, resume and remove one."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import click

from dagorama.cli.base import Answer, broker_command, broker_options, named_command, print_answer
from dagorama.cli.inspect import instance_data, summary_state
from dagorama.cli.output import NAMED, Output
from dagorama.client.display.tables import duration_text, table, time_text, uuid_text
from dagorama.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection

_HEADS = ("schedule", "state", "when", "next", "last", "instance", "missed", "definition", "reason")


@click.group(invoke_without_command=True)
@click.pass_context
@broker_options(NAMED)
def schedules(context: click.Context, host: str | None, port: int | None, output: Output) -> None:
    """List schedules: their next and last times, the state of the last instance, and the number of missed times."""
    if context.invoked_subcommand is None:
        print_answer(lambda broker: _answer(broker.list_schedules()), host, port, output)


@schedules.command("list")
@named_command
def list_(broker: Connection) -> Answer:
    """List schedules, as `dagorama schedules` does."""
    return _answer(broker.list_schedules())


@schedules.command()
@click.argument("schedule")
@broker_command
def explain(broker: Connection, schedule: str) -> Answer:
    """Explain when SCHEDULE starts its next instance, or why it does not."""
    if not schedule:
        raise NotFound("there is no schedule ''")  # the broker would list all
    (found,) = broker.list_schedules(schedule)
    heading = f"schedule {found.id}  {when_text(found)}  {_state(found)}".rstrip()
    reasons = list(_reasons(found))
    return Answer("\n".join([heading, *(f"- {each}" for each in reasons)]), {**_data(found), "reasons": reasons})


@schedules.command()
@click.argument("schedule")
@broker_command
def pause(broker: Connection, schedule: str) -> Answer:
    """Pause SCHEDULE: it starts nothing until it is resumed, even if a deployment registers it again.

    Instances that it has started continue.
    """
    return _changed(schedule, broker.pause_schedule(schedule), is_paused=True)


@schedules.command()
@click.argument("schedule")
@broker_command
def resume(broker: Connection, schedule: str) -> Answer:
    """Resume SCHEDULE from its next time on; times that have passed are skipped."""
    return _changed(schedule, broker.pause_schedule(schedule, resume=True), is_paused=False)


@schedules.command()
@click.argument("schedule")
@broker_command
def remove(broker: Connection, schedule: str) -> Answer:
    """Remove SCHEDULE. Instances that it has started continue."""
    broker.remove_schedule(schedule)
    return Answer(f"schedule {schedule} is removed", {"schedule": schedule, "removed": True})


def _changed(schedule: str, reply: broker_pb2.PauseScheduleReply, is_paused: bool) -> Answer:
    state = "paused" if is_paused else "resumed"
    text = f"schedule {schedule} is {state}" if reply.changed else f"schedule {schedule} was {state} already"
    if reply.next:
        text += f"; its next time is {time_text(reply.next)}"
    data = {"schedule": schedule, "paused": is_paused, "changed": reply.changed, "next_at": reply.next or None}
    return Answer(text, data)


def _answer(found: Sequence[broker_pb2.ScheduleInfo]) -> Answer:
    rows = [
        (
            each.id,
            _state(each),
            when_text(each),
            time_text(each.next),
            time_text(each.last),
            summary_state(each.instance) if each.HasField("instance") else "removed" if each.last else "",
            missed_text(each),
            each.definition,
            each.stuck or each.instance.stuck,
        )
        for each in found
    ]
    return Answer(table(_HEADS, rows), list(map(_data, found)), names=[each.id for each in found])


#: By the rule for times of a schedule whose last instance has not ended.
_OVERLAPS = {
    "skip": "times until it has ended are left out",
    "queue": "the latest time until then starts an instance when it has ended",
    "allow": "other times start instances too",
    "replace": "the next time cancels it and starts another one",
}


def _reasons(schedule: broker_pb2.ScheduleInfo) -> Iterator[str]:
    """Yield sentences about the next time, and about all that keeps instances from starting or ending."""
    if schedule.paused:
        yield f"it is paused and starts nothing; `dagorama schedules resume {quote(schedule.id)}` lets it go on"
    elif schedule.stuck:
        yield f"its times cannot be computed, so it starts nothing: {schedule.stuck}"
    elif schedule.next:
        yield f"its next time is {time_text(schedule.next)}"
    else:
        yield "it has no more times: create it again with other times, or remove it"
    if not schedule.last:
        yield "it has started no instance"
    elif not schedule.HasField("instance"):
        yield f"the instance for {time_text(schedule.last)} was removed"
    else:
        yield from _last_instance(schedule)
    if schedule.waiting:
        yield f"an instance for {time_text(schedule.waiting)} starts when the last one has ended"
    if schedule.missed:
        times = "1 time was missed" if schedule.missed == 1 else f"{missed_text(schedule)} times were missed"
        yield f"{times}, as was last found at {time_text(schedule.missed_at)}"


def _last_instance(schedule: broker_pb2.ScheduleInfo) -> Iterator[str]:
    """Yield sentences about the instance that was started last, and what it keeps from starting."""
    info = schedule.instance
    id, started = uuid_text(info.instance), f"the instance for {time_text(schedule.last)}"
    if info.ended:
        yield f"{started}, {id}, has {'failed' if info.failed else 'completed'}"
        return
    rule = _OVERLAPS.get(schedule.overlap, "the broker applies a rule to other times that this version does not know")
    yield f'{started}, {id}, has not ended, and {rule} (overlap="{schedule.overlap}")'
    if info.stuck:
        yield f"no node of that instance can proceed: {info.stuck}; see `dagorama explain {id}`"


def _state(schedule: broker_pb2.ScheduleInfo) -> str:
    """Return what the schedule does: it waits for its next time, for its last instance, or for a person."""
    if schedule.paused:
        return "paused"
    if schedule.stuck:
        return "stuck"
    return "queued" if schedule.waiting else "" if schedule.next else "over"


def when_text(schedule: broker_pb2.ScheduleInfo) -> str:
    """Return the times of a schedule, such as `0 7 * * * Europe/Berlin` or `every 5 min`."""
    return f"{schedule.cron} {schedule.zone}" if schedule.cron else f"every {duration_text(int(schedule.every * 1e6))}"


def missed_text(schedule: broker_pb2.ScheduleInfo) -> str:
    """Return how many times were missed, with a plus if not all of them were counted; an empty text for none."""
    return f"{schedule.missed:,}{'+' if schedule.uncounted else ''}" if schedule.missed else ""


def _data(schedule: broker_pb2.ScheduleInfo) -> dict[str, object]:
    return {
        "schedule": schedule.id, "definition": schedule.definition, "function": schedule.function,
        "cron": schedule.cron or None, "zone": schedule.zone if schedule.cron else None,
        "every": schedule.every or None, "overlap": schedule.overlap, "catch_up": schedule.catch_up,
        "paused": schedule.paused, "next_at": schedule.next or None, "last_at": schedule.last or None,
        "waiting_for": schedule.waiting or None, "missed": schedule.missed, "missed_at": schedule.missed_at or None,
        "more_missed": schedule.uncounted, "put_at": schedule.put, "by": schedule.by or None,
        "fair": schedule.fair or None, "stuck": schedule.stuck or None,
        "instance": instance_data(schedule.instance) if schedule.HasField("instance") else None,
    }  # fmt: skip
