"""Bytes that look for new ways through the code that reads what strangers send: envelopes, frames, calls.

Run: python -m tests.proof.guided [--runs N] [--seed N]

Guided by coverage (atheris). Where that does not install, a sentence says so and nothing is claimed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from importlib.util import find_spec
from itertools import count

from .progress import made, patience

#: Functions of `readers`.
TARGETS = ("envelopes", "frames", "calls")


def main() -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, help="this one, in this process")
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print("atheris is not installed: looking for new ways through the readers is left out")
        return 0
    if options.target:
        fuzz(options.target, options.runs, options.seed)
    for target in TARGETS:
        command = [sys.executable, "-m", "tests.proof.guided", "--target", target]
        command += ["--runs", str(options.runs), "--seed", str(options.seed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(done.stdout[-4000:])
            print(f"{target}: it broke")
            return 1
    print(f"{options.runs:,} inputs to each of {', '.join(TARGETS)}: every one was read, or refused with a sentence")
    return 0


def fuzz(target: str, runs: int, seed: int) -> None:
    """Does not return: the fuzzer ends the process."""
    import atheris

    os.environ.setdefault("DAGORAMA_SIGNING_KEYS", "A" * 43)
    with atheris.instrument_imports(include=["dagorama", "dagorama_broker"]):
        from tests.proof import readers
    arguments = [sys.argv[0], f"-runs={runs}", f"-seed={seed}", "-max_len=4096", "-rss_limit_mb=2048"]
    arguments.append(f"-timeout={patience(10):g}")
    reads, inputs = getattr(readers, target), count()

    def read(data: bytes) -> None:
        reads(data)
        if next(inputs) % 1_000 == 0:
            made()

    atheris.Setup(arguments, read)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
