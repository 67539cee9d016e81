"""The calls about schedules: what a broker refuses, and how it lists them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import FUNCTION, Served, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
GONE = grpc.StatusCode.NOT_FOUND


def request(**changed: Any) -> pb.PutScheduleRequest:
    return pb.PutScheduleRequest(**{
        "id": "daily", "definition": "work:Task", "function": FUNCTION, "arguments": b"\1\1arguments",
        "cron": "0 7 * * *", "zone": "Europe/Berlin", **changed,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"id": ""}, "has 0 characters; 1 to 200 are allowed"),
        ({"id": "x" * 201}, "has 201 characters"),
        ({"id": "a\0b"}, "has a NUL character"),
        ({"id": " "}, "the ID of a schedule is ' ': it must have a character that can be seen"),
        ({"id": "a\nb"}, "neither line breaks nor control characters"),
        ({"definition": ""}, "the name of a definition has 0 characters"),
        ({"function": pb.Function()}, "the name of a function has 0 characters"),
        ({"arguments": b"\1\0unsigned"}, "an envelope of at most 64 KiB that is signed"),
        ({"arguments": b"\1\5references"}, "neither promises nor large values"),
        ({"arguments": b""}, "these are 0 bytes"),
        ({"arguments": b"\1\1" + b"x" * (64 << 10)}, "these are 65,538 bytes"),
        ({"cron": "0 25 * * *"}, "'0 25 \\* \\* \\*' is not a cron expression: Bad hour"),
        ({"cron": ""}, "either a cron expression or an interval"),
        ({"every": 5.0}, "either a cron expression or an interval"),
        ({"cron": "", "every": 0.5}, "it must be from 1 to 2147483647 s"),
        ({"cron": "", "every": float("nan")}, "every nan s"),
        ({"zone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone that the broker's machine knows"),
        ({"zone": "../../etc/passwd"}, "is not a time zone"),
        ({"overlap": "wait"}, "overlap of a schedule is 'wait': it must be one of skip, queue, allow, replace"),
        ({"catch_up": "some"}, "one of last, none, all"),
        ({"fair": "x" * 257}, "the fair key of an instance has 257 characters; 256 are allowed"),
        ({"fair": "a\0b"}, "has a NUL character"),
        ({"digest": b"x" * 65}, "the digest of a schedule has 65 bytes"),
    ],
)  # fmt: skip
async def test_a_schedule_that_is_none_is_refused(served: Served, changed: dict[str, Any], text: str) -> None:
    with refused(INVALID, text.replace("\\", "")):
        await served.stub.PutSchedule(request(**changed))
    assert not (await served.stub.ListSchedules(pb.ListSchedulesRequest())).schedules


async def test_schedules_are_listed_in_pages_by_id(served: Served) -> None:
    for id in ("c", "a", "b"):
        reply = await served.stub.PutSchedule(request(id=id))
        assert reply.next > 0
    first = await served.stub.ListSchedules(pb.ListSchedulesRequest(limit=2))
    assert ([each.id for each in first.schedules], first.more) == (["a", "b"], "b")
    rest = await served.stub.ListSchedules(pb.ListSchedulesRequest(limit=2, after=first.more))
    assert ([each.id for each in rest.schedules], rest.more) == (["c"], "")
    (one,) = (await served.stub.ListSchedules(pb.ListSchedulesRequest(id="b"))).schedules
    assert (one.definition, one.function, one.overlap, one.catch_up) == ("work:Task", FUNCTION.name, "skip", "last")
    assert not one.HasField("instance")
    with refused(GONE, "there is no schedule 'd'"):
        await served.stub.ListSchedules(pb.ListSchedulesRequest(id="d"))


async def test_what_is_not_there_is_neither_paused_nor_removed(served: Served) -> None:
    with refused(GONE, "there is no schedule 'daily'"):
        await served.stub.PauseSchedule(pb.PauseScheduleRequest(id="daily"))
    with refused(GONE, "there is no schedule 'daily'"):
        await served.stub.RemoveSchedule(pb.RemoveScheduleRequest(id="daily"))


async def test_a_put_again_says_that_the_schedule_is_paused(served: Served) -> None:
    assert not (await served.stub.PutSchedule(request())).paused
    paused = await served.stub.PauseSchedule(pb.PauseScheduleRequest(id="daily"))
    assert (paused.changed, paused.next) == (True, 0.0)
    again = await served.stub.PutSchedule(request(overlap="queue"))
    assert (again.paused, again.next) == (True, 0.0)
    resumed = await served.stub.PauseSchedule(pb.PauseScheduleRequest(id="daily", resume=True))
    assert resumed.changed
    assert resumed.next > 0
