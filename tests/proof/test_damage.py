"""The short form of `python -m tests.proof.damage`."""

from __future__ import annotations

import pytest

from dagorama_broker.store.sql import reader

from . import damage


def test_a_changed_byte_is_an_error_that_names_it_or_the_same_answer() -> None:
    verdict = damage.prove(flips=40, seed=2)
    assert verdict.wrong == []
    assert verdict.errors > 3
    assert verdict.same > 3


def test_a_store_that_checks_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("check_payload", "check_row"):
        monkeypatch.setattr(reader, check, lambda *arguments: None)
    assert damage.prove(flips=120, seed=1).wrong
