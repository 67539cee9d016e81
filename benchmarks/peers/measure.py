"""Runs the parts on one system and prints a line of JSON for each figure: a program that `compare.py` starts.

Run: python -m peers.measure MODULE:CLASS --begun SECONDS --parts fan,chain [--quick], in the folder `benchmarks`
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from importlib import import_module

from peers.parts import FULL, PARTS, QUICK, START, WARM, expect


def say(**line: object) -> None:
    """Print a line for `compare.py`; libraries may print others."""
    print(json.dumps(line), flush=True)


def options() -> Namespace:
    parser = ArgumentParser(description="the workloads on one system")
    parser.add_argument("stack", help="MODULE:CLASS of a context manager that starts the system")
    parser.add_argument("--begun", type=float, required=True, help="time.monotonic() when this program was started")
    parser.add_argument("--parts", default="", help="names with commas between them")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    module, _, name = chosen.stack.partition(":")
    sizes = QUICK if chosen.quick else FULL
    with getattr(import_module(module), name)() as stack:
        expect(stack.one(7), 7, "the first call")
        say(row=START, figure=time.monotonic() - chosen.begun)
        say(version=stack.version())
        for part in filter(None, chosen.parts.split(",")):
            for _ in PARTS[part](stack, WARM):
                pass
            start = time.monotonic()
            for row, figure in PARTS[part](stack, sizes):
                say(row=row, figure=figure)
            say(part=part, seconds=time.monotonic() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
