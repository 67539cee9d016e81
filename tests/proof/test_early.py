"""The short form of `python -m tests.proof.early`."""

from __future__ import annotations

from pathlib import Path

from . import early


async def test_nothing_acknowledged_is_lost_if_a_broker_dies_between_a_grant_and_its_commit(tmp_path: Path) -> None:
    ledger = await early.prove(f"sqlite:///{tmp_path}/broker.sqlite3", 3, 5)
    assert ledger.violations == []
    assert ledger.early >= 3
    assert len(ledger.values) == early.NODES * len(ledger.submitted)


async def test_a_broker_that_uses_keys_again_is_found_out(tmp_path: Path) -> None:
    ledger = await early.prove(f"sqlite:///{tmp_path}/broker.sqlite3", early.WEAKER, 1, "weaker")
    assert "stands for" in ledger.violations[0]
