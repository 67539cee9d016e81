"""The short form of `python -m tests.proof.power`. Without a C compiler there is nothing to record with."""

from __future__ import annotations

import pytest

from . import power

pytestmark = pytest.mark.skipif(power.compiler() is None, reason="no C compiler: writes cannot be recorded")


def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    verdict = power.prove("FULL", cuts=20, seed=1, instances=40)
    assert verdict.lost == []
    assert verdict.cuts == 20
    assert verdict.acknowledged > 300


@pytest.mark.parametrize("how", power.WEAKER)
def test_a_weaker_broker_is_found_out(how: str) -> None:
    assert power.prove(how, cuts=20, seed=1, instances=40).lost
