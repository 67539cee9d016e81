"""Planted misuses fail when they run, or lose what the file says; the silent snippets run to their end."""

from __future__ import annotations

import gc
import warnings

import pytest

from tests.check.running import PLANTED, SILENT, all_ends, module_of
from tests.support.brokers import launch_broker

#: Errors that a misuse raises: by the library, or by Python for coroutines, strings and tables.
OF_MISUSE = {
    "AttributeError", "NotInInstance", "NotPicklable", "PromiseAttribute", "PromiseMisuse", "TypeError", "ValueError",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # from Python 3.13 on
def test_planted_misuses_fail_or_lose_something_and_silent_snippets_run_to_their_end() -> None:
    """All in one test: a broker and a worker run everything once."""
    with launch_broker(port=0), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        planted, silent = all_ends("planted", PLANTED), all_ends("silent", SILENT)
        gc.collect()
    assert {what: end for what, end in planted.items() if end not in OF_MISUSE} == {
        f"{name}.{what}": f"= {value!r}"
        for name in PLANTED
        for what, value in getattr(module_of("planted", name), "LOST", {}).items()
    }
    assert {what for what, end in silent.items() if not end.startswith("= ")} == {
        f"{name}.{what}" for name in SILENT for what in getattr(module_of("silent", name), "FAILS", [])
    }
    assert {*PLANTED} - {what.partition(".")[0] for what in planted} == {"middle"}, "it has base classes only"
    assert {what.partition(".")[0] for what in silent} == {*SILENT}
