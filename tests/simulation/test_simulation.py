"""The short form of `python -m tests.simulation` and `python -m tests.simulation.mutations`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .aging import AgingLife
from .hooks import HookedLife
from .life import run
from .mutants import MUTANTS, broken
from .mutations import catch
from .schedules import ScheduledLife
from .signals import SignalLife

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_promise_is_broken_whatever_fails() -> None:
    results = [run(seed) for seed in range(1, 31)]
    assert [result.violation for result in results if result.violation] == []
    assert sum(result.restarts for result in results) > 15
    assert sum(result.nodes for result in results) > 800


@pytest.mark.slow
def test_no_promise_is_broken_while_instances_are_removed_and_retried() -> None:
    results = [run(seed, AgingLife) for seed in range(1, 16)]
    assert [result.violation for result in results if result.violation] == []
    assert sum(result.restarts for result in results) > 8
    traces = [event[1] for result in results for event in result.trace]
    assert traces.count("removed") > 40
    assert traces.count("revived") > 15


@pytest.mark.slow
def test_no_promise_is_broken_while_schedules_start_instances() -> None:
    results = [run(seed, ScheduledLife) for seed in range(1, 11)]
    assert [result.violation for result in results if result.violation] == []
    assert sum(result.restarts for result in results) > 5
    assert [event[1] for result in results for event in result.trace].count("fired") > 100


@pytest.mark.slow
def test_no_promise_is_broken_while_failure_hooks_are_called() -> None:
    results = [run(seed, HookedLife) for seed in range(1, 16)]
    assert [result.violation for result in results if result.violation] == []
    assert sum(result.restarts for result in results) > 6
    assert [event[1] for result in results for event in result.trace].count("called") > 20


def test_each_signal_is_given_once_and_in_order_whatever_fails() -> None:
    results = [run(seed, SignalLife) for seed in range(1, 11)]
    assert [result.violation for result in results if result.violation] == []
    assert sum(result.restarts for result in results) > 5
    traces = [event[1] for result in results for event in result.trace]
    assert traces.count("sent") > 80
    assert traces.count("wait ended") > 50


def test_a_seed_is_one_schedule() -> None:
    assert run(7).trace == run(7).trace


def test_a_seed_is_the_same_schedule_in_another_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7"]
    outputs = [
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": drawn}, capture_output=True, text=True)
        for drawn in ("1", "2")
    ]
    traces = {output.stdout.splitlines()[-1] for output in outputs}
    assert len(traces) == 1, outputs
    assert traces.pop().startswith("trace ")


def test_there_are_twenty_ways_to_break_the_product_at_least() -> None:
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_a_mutant_replaces_is_there(mutant: str) -> None:
    with broken(mutant):
        pass


@pytest.mark.parametrize(
    "mutant",
    [
        "fencing removed",
        "acknowledge before commit",
        "lost wake-up of a waiter",
        "removed though a value names it",
        "a retry leaves what failed because of another",
        "schedules are forgotten at a restart",
        "the key of a signal is forgotten",
    ],
)
def test_a_broken_product_is_caught(mutant: str) -> None:
    assert catch(mutant, seeds=100).seed


def test_a_broken_product_is_whole_again_afterwards() -> None:
    assert catch("child visible early", seeds=10).seed
    assert run(1).violation is None
