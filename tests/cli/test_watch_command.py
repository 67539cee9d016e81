"""The table of `dagorama watch`: rows by function, their sum, and an estimate of the time that is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from dagorama.api import broker_pb2 as pb
from dagorama.cli.activity import queue_data, show_activity
from dagorama.cli.output import Output
from dagorama.cli.watch import progress_data
from dagorama.client.connection import Connection
from dagorama.client.display.progress import rich_table, rows, seconds_left, summary
from dagorama.client.display.tables import duration_text
from dagorama.models.progress import FunctionProgress, Progress
from dagorama.models.state import State


def progress(*functions: FunctionProgress, left_out: int = 0, ended_at: float | None = None) -> Progress:
    failed = any(each.failed for each in functions)
    return Progress(functions, "m:D", 100.0, ended_at, failed, left_out)


def pages(done: int, running: int, waiting: int, mean: float = 2.0) -> FunctionProgress:
    states = {State.COMPLETED: done, State.CLAIMED: running, State.QUEUED: waiting}
    return FunctionProgress("m:D.page", states, timed=done, run_seconds=mean * done, longest_seconds=mean)


def test_the_time_that_is_left_is_estimated_from_means_and_from_what_runs() -> None:
    assert seconds_left(progress(pages(10, 2, 8))) == 10.0
    assert rows(progress(pages(10, 2, 8)), 10.0) == [("D.page", "10 of 20", "2", "8", "", "2 s", "10 s")]


def test_nothing_is_estimated_without_a_mean_or_a_running_node() -> None:
    assert seconds_left(progress(pages(10, 0, 8))) is None
    assert seconds_left(progress(pages(10, 2, 8), pages(0, 0, 1))) is None
    assert seconds_left(progress(pages(10, 2, 0), pages(0, 0, 0))) == 2.0


def test_several_functions_have_a_sum_and_others_are_counted() -> None:
    found = rows(progress(pages(1, 1, 1), pages(2, 0, 0), left_out=3), 61.0)
    assert found[-2] == ("in all", "3 of 5", "1", "1", "", "", "1 min 1 s")
    assert found[-1][0] == "3 more functions"
    assert {len(row) for row in found} == {7}


def test_a_line_of_json_says_how_many_functions_are_not_in_it() -> None:
    assert progress_data("id", progress(pages(1, 1, 1), left_out=3))["left_out"] == 3


def test_names_are_shown_as_they_are_and_control_no_terminal() -> None:
    function = FunctionProgress("m:D.\x1b[31m[red]page", {State.QUEUED: 1})
    drawn = Console(file=StringIO(), width=120)
    with drawn.capture() as written:
        drawn.print(rich_table("3f9a", Progress((function,), "m:[bold]\x1b[2J", 100.0, None, False), None, 120))
    assert "m:[bold]\\x1b[2J  3f9a" in written.get()
    assert "D.\\x1b[31m[red]page" in written.get()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_has_all_names_and_numbers_also_on_a_narrow_terminal(width: int) -> None:
    measure = FunctionProgress(
        "m:Shapes.measure", {State.COMPLETED: 12_300, State.QUEUED: 20_000, State.FAILED: 7}, 7, 2.0
    )
    drawn = Console(file=StringIO(), width=width)
    with drawn.capture() as written:
        drawn.print(rich_table("3f9a", progress(measure, pages(1, 1, 1)), None, width))
    words = written.get().split()
    assert "…" not in written.get()
    assert {"Shapes.measure", "12300", "of", "32307", "20000", "7", "286", "ms", "in", "all"} <= set(words)


class Watched(Connection):
    """Tells of a queue that a person has paused."""

    def __init__(self) -> None:
        """Connect to no broker."""

    def watch_queues(self, queue: str = "") -> Iterator[pb.Activity]:
        paused = pb.QueueInfo(queue="mail", queued=3, paused_since=1_700_000_000.0, paused_by="ops")
        yield pb.Activity(queues=[paused], nodes=[0] * len(State), workers=1, slots=2)


def test_a_paused_queue_is_shown_with_the_name_of_who_paused_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_activity(Watched(), "", Output.TABLE)
    assert "mail   3       -        -        paused by ops\n" in capsys.readouterr().out
    show_activity(Watched(), "", Output.JSON)
    (queue,) = json.loads(capsys.readouterr().out)["queues"]
    assert (queue["paused_since"], queue["paused_by"]) == (1_700_000_000.0, "ops")
    (reply,) = Watched().watch_queues()
    assert queue_data(reply.queues[0]).items() <= queue.items()


def test_the_summary_says_what_is_known_so_far_and_how_it_ended() -> None:
    failed = FunctionProgress("m:D.page", {State.COMPLETED: 3, State.FAILED: 1, State.CANCELLED: 1})
    assert summary(progress(pages(1, 2, 3))) == "1 of 6 nodes known so far are done, 2 run, 3 wait"
    assert summary(progress(failed)) == "3 of 5 nodes known so far are done, 0 run, 2 failed"
    assert summary(progress(failed, ended_at=190.0)) == (
        "ended with 2 failed or cancelled nodes after 1 min 30 s: 3 of 5 nodes done"
    )


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, ""), (1, "0.001 ms"), (1_500, "1.5 ms"), (999_400, "999 ms"), (999_600, "1 s"), (2_340_000, "2.34 s"),
        (59_940_000, "59.9 s"), (59_960_000, "1 min 0 s"), (3_599_000_000, "59 min 59 s"), (7_260_000_000, "2 h 1 min"),
    ],
)  # fmt: skip
def test_durations_have_a_unit_that_fits(microseconds: int, text: str) -> None:
    assert duration_text(microseconds) == text
