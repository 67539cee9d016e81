"""The short form of `python -m tests.proof.postgres`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.broker_fixtures import server_or_skip
from tests.support.postgres_server import PostgresServer

from . import postgres
from .postgres_mutants import MUTANTS
from .postgres_promotions import promotions
from .postgres_rivals import ENDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with server_or_skip() as server:
        yield server


@pytest.mark.parametrize(("part", "count"), [("cuts", 20), ("takeovers", len(ENDS)), ("kills", 4)])
def test_no_acknowledged_commit_is_lost_or_made_twice(server: PostgresServer, part: str, count: int) -> None:
    verdict = postgres.prove(server, part, count, seed=1)
    assert verdict.violations == []
    assert verdict.acknowledged > count


def test_no_acknowledged_commit_is_lost_when_a_replica_takes_the_place_of_the_server(server: PostgresServer) -> None:
    verdict = promotions(1, seed=1)
    assert verdict.violations == []
    assert verdict.seconds


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_weaker_store_is_found_out(server: PostgresServer, mutant: str) -> None:
    part, _ = MUTANTS[mutant]
    assert postgres.prove(server, part, postgres.WEAKER[part], seed=1, mutant=mutant).violations
