"""A schedule is called with the parameters of the entry point."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, assert_type

from dagorama import DAGDefinition, Schedule, dagorama, schedule, scheduled_for


class Report(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, region: str, *, pages: int = 1) -> list[str]:
        assert_type(scheduled_for(), datetime | None)
        return [region] * pages


class AsyncReport(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return number


class SaysAny(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, text: str) -> Any:
        return text


def deploy() -> None:
    taken = schedule(Report(), "0 7 * * MON-FRI", tz="Europe/Berlin", id="daily", overlap="queue", catch_up="all")
    assert_type(taken("EU", pages=2), Schedule)
    assert_type(taken("EU").next, datetime | None)
    taken(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(schedule(AsyncReport(), every=timedelta(minutes=5), id="often")(1), Schedule)
    assert_type(schedule(SaysAny(), every=timedelta(minutes=5), id="any")("a"), Schedule)
    schedule(Report(), every=300, id="a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    schedule(Report(), "0 7 * * *", id="a", overlap="wait")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    schedule(Report(), "0 7 * * *")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    given: Callable[[int], Schedule] = schedule(Report(), "0 7 * * *", id="a")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType, reportArgumentType]
    print(given)
