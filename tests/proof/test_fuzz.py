"""The short form of `python -m tests.proof.fuzz`."""

from __future__ import annotations

from . import fuzz


def test_whatever_comes_the_broker_lives_and_serves_others() -> None:
    fuzzer = fuzz.prove(120, seed=1)
    assert fuzzer.violations == []
    assert fuzzer.statuses["OK"] > 10
    assert fuzzer.statuses["INVALID_ARGUMENT"] > 50
