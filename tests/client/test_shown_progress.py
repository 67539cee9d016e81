"""`resolve(..., progress=True)` shows the progress of the instance while it waits."""

from __future__ import annotations

import sys

import pytest

from dagorama import DAGDefinition, aresolve, dagorama, resolve
from dagorama.client.display import progress as display
from dagorama.client.display.progress import LineDisplay, html_of
from dagorama.models.progress import FunctionProgress, Progress
from dagorama.models.state import State
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

WAIT = 60


class Sums(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> int:
        return self.total([self.part(number) for number in range(count)])

    @dagorama().syncfn
    def part(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, parts: list[int]) -> int:
        return sum(parts)


async def test_progress_is_printed_to_stderr_and_ends_with_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    with launch_broker(port=0, store="memory://"), launch_workers(1):
        instance, promise = Sums()(5)
        assert resolve(instance, promise, timeout=WAIT, progress=True) == 10
        said = capfd.readouterr()
        assert said.out == ""
        assert "completed after" in said.err
        assert "Sums.part        5 of 5" in said.err
        assert said.err.count("completed after") == 1, "the end is printed once"
        assert await aresolve(*Sums()(3), timeout=WAIT, progress=True) == 3
        assert "Sums.part        3 of 3" in capfd.readouterr().err
        resolve(instance, promise, timeout=WAIT)
        assert capfd.readouterr().err == ""


def test_a_wait_whose_progress_cannot_be_shown_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with launch_broker(port=0, store="memory://"), launch_workers(1):
        instance, promise = Sums()(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(display.LineDisplay, "show", _refuses)
            assert resolve(instance, promise, timeout=WAIT, progress=True) == 0
        assert "no progress is shown: the screen is full" in capfd.readouterr().err
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", None)  # as in a program without a console
            assert resolve(instance, promise, timeout=WAIT, progress=True) == 0


def _refuses(_: LineDisplay, progress: Progress) -> None:
    raise OSError("the screen is full")


def test_progress_without_a_wait_is_refused() -> None:
    with launch_broker(port=0, store="memory://"):
        instance, promise = Sums()(1)
        with pytest.raises(TypeError, match="pass timeout too; timeout=None waits forever"):
            resolve(instance, promise, progress=True)  # type: ignore[call-overload]  # the mistake


def test_html_has_a_bar_for_each_function_and_escapes_what_it_shows() -> None:
    function = FunctionProgress("m:D.<lambda>", {State.COMPLETED: 3, State.FAILED: 1, State.QUEUED: 4})
    html = html_of("3f9a", Progress((function, function), "m:<D>", 1.0, None, True), None)
    assert html.count('<progress value="4" max="8"></progress>') == 2
    assert "<b>m:&lt;D&gt;</b> 3f9a" in html
    assert "D.&lt;lambda&gt;" in html
    assert "<lambda>" not in html
