"""The program of a worker that is a fork: what `python -m dagorama.worker --launched` runs."""

from __future__ import annotations

from dagorama.worker.main import run_launched


def main(arguments: list[str]) -> int:
    return run_launched(int(arguments[0]))
