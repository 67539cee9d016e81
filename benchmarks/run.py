"""All benchmarks, one line each.

Run: python benchmarks/run.py
"""

import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import fan

DEMO = Path(__file__).parents[1] / "samples" / "test2.py"
ASLEEP = 2.0  # seconds that the demo's nodes sleep, side by side


def beyond_the_sleep() -> float:
    """Seconds from the start of the demo's interpreter to its answer, less the sleep."""
    start = perf_counter()
    with subprocess.Popen([sys.executable, DEMO], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        answer = demo.stdout.readline()
        seconds = perf_counter() - start
    assert answer.startswith("Response: Counter({0: 2, 1: 2})"), answer
    return seconds - ASLEEP


def main() -> None:
    overhead = median(beyond_the_sleep() for _ in range(3))
    print(f"demo, python start to answer, beyond the sleep: {overhead:.2f} s (median of 3)", flush=True)
    for store in ("sqlite", "memory"):
        print(fan.report(width=5000, workers=2, store=store, runs=3), flush=True)


if __name__ == "__main__":
    main()
