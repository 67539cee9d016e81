"""Planted misuses fail when they run, or lose what the file says; the silent snippets run to their end."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from dagorama_broker.launch import launch_broker
from tests.check.running import PLANTED, SILENT, all_ends, module_of

#: Errors of a misuse: ours, and those of Python for coroutines, texts and tables.
OF_MISUSE = {
    "AttributeError", "NotInInstance", "NotPicklable", "PromiseAttribute", "PromiseMisuse", "TypeError", "ValueError",
}  # fmt: skip
#: The worker that runs them all waits for a moment at its end.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("planted"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def ends() -> Iterator[dict[str, str]]:
    """How everything ends, by module and name: it runs once, because a worker waits a moment before it gives up."""
    with launch_broker(port=0), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield all_ends("planted", PLANTED) | {f"silent.{name}": end for name, end in all_ends("silent", SILENT).items()}
        gc.collect()


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_fails_or_loses_something(name: str, ends: dict[str, str]) -> None:
    found = {what: end for what, end in ends.items() if what.startswith(f"{name}.") and end not in OF_MISUSE}
    lost = getattr(module_of("planted", name), "LOST", {})
    assert found == {f"{name}.{what}": f"= {value!r}" for what, value in lost.items()}


@pytest.mark.parametrize("name", SILENT)
def test_what_must_stay_silent_runs_to_its_end(name: str, ends: dict[str, str]) -> None:
    found = {what for what, end in ends.items() if what.startswith(f"silent.{name}.") and not end.startswith("= ")}
    assert found == {f"silent.{name}.{what}" for what in getattr(module_of("silent", name), "FAILS", [])}
