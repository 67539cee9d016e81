"""Kills and stops brokers, supervisors and children at random under load, and judges by evidence outside the product.

Run: python benchmarks/chaos.py [--kills 50] [--nodes 20000] [--seed N] [--break PROMISE]

It ends with 0 when nothing was lost, doubled or wrong and enough was killed for that to mean something; `--break`
breaks one promise of the broker's, and then it has to end with 1.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos_parts import processes
from chaos_parts.client import Client
from chaos_parts.graph import nodes_in
from chaos_parts.judge import Verdict, judge

WORKERS = 4
DEPTH = 4
#: Seconds without progress after which a run is considered hung: an expected child is missing, or no instance ends.
PATIENCE = 600.0
#: Kills and losses that a run must contain for its result to count, out of 50 kills.
LEAST_BROKERS, LEAST_WORKERS, LEAST_STOPS, LEAST_LATE = 15, 15, 5, 3


@dataclass
class Killer:
    """Kills with SIGKILL, stops with SIGSTOP past the lease; all at times and on victims that the seed draws."""

    chance: random.Random
    broker: processes.Program
    workers: list[processes.Program]
    brokers: int = 0
    supervisors: int = 0
    children: int = 0
    stops: int = 0
    stopped_children: set[int] = field(default_factory=set)
    waking: list[threading.Timer] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.brokers + self.supervisors + self.children

    def plan(self, kills: int) -> list[str]:
        """Return the kinds of faults: a third of brokers, supervisors and children each, with stops between them."""
        brokers, supervisors = -(-kills // 3), kills // 3
        plan = ["broker"] * brokers + ["supervisor"] * supervisors + ["child"] * (kills - brokers - supervisors)
        plan += ["stop"] * max(8, kills // 6)
        self.chance.shuffle(plan)
        return plan

    def strike(self, what: str) -> None:
        getattr(self, f"_{what}")()

    def _broker(self) -> None:
        self.broker.kill()
        time.sleep(self.chance.uniform(0, 0.2))
        self.broker.start()
        self.brokers += 1

    def _supervisor(self) -> None:
        worker = self.chance.choice(self.workers)
        worker.kill()
        worker.start()
        self.supervisors += 1

    def _child(self) -> None:
        """Kill a child; a worker that was started a moment ago may have none yet."""
        until = time.monotonic() + PATIENCE
        while not (children := self._all_children()) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(self.chance.choice(children), signal.SIGKILL)
        self.children += 1

    def _all_children(self) -> list[int]:
        return [pid for worker in self.workers for pid in processes.children_of(worker.process.pid)]

    def _stop(self) -> None:
        """Stop a supervisor, not its child: what the child finishes meanwhile arrives after the lease."""
        worker = self.chance.choice(self.workers)
        self.stopped_children.update(processes.children_of(worker.process.pid))
        worker.send(signal.SIGSTOP)
        waking = threading.Timer(processes.LEASE + 0.3, worker.send, [signal.SIGCONT])
        waking.start()
        self.waking.append(waking)
        self.stops += 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(options: Namespace, folder: Path) -> tuple[Killer, Verdict]:
    (folder / "log").mkdir()
    port = free_port()
    os.environ.update(DAGORAMA_HOST="127.0.0.1", DAGORAMA_PORT=str(port))
    broker = processes.broker(port, folder / "store.db", options.broken, folder / "broker.out")
    workers = [processes.worker(port, folder / f"worker{number}.out") for number in range(WORKERS)]
    client = Client(folder, DEPTH, most=6)
    killer = Killer(random.Random(options.seed), broker, workers)
    submitting = threading.Thread(target=client.run)
    try:
        submitting.start()
        _strike_all(killer, client, options)
        client.stopping.set()
        submitting.join()
        for waking in killer.waking:
            waking.join()
        broker.kill()
        broker.start()
        verdict = judge(client, folder / "log", DEPTH, killer.stopped_children, options.patience)
    finally:
        client.stopping.set()
        for program in [*workers, broker]:
            program.stop()
    sys.stderr.writelines((folder / "broker.out").read_text()[-4_000:] if options.verbose else "")
    for code in broker.own_ends:
        verdict.problems.append(f"the broker ended by itself with code {code}")
    return killer, verdict


def _strike_all(killer: Killer, client: Client, options: Namespace) -> None:
    for what in killer.plan(options.kills):
        time.sleep(killer.chance.uniform(0.3, 0.9))
        killer.strike(what)
    before, until = -1, 0.0
    while len(client.acknowledged) * nodes_in(DEPTH) < options.nodes:
        done = len(client.acknowledged) + len(client.results)
        if done != before:
            before, until = done, time.monotonic() + options.patience
        elif time.monotonic() > until:
            return  # what is missing then is a violation
        time.sleep(0.05)


def shortfalls(options: Namespace, killer: Killer, verdict: Verdict) -> list[str]:
    share = options.kills / 50
    found = {
        "broker kills": (killer.brokers, int(LEAST_BROKERS * share)),
        "worker and child kills": (killer.supervisors + killer.children, int(LEAST_WORKERS * share)),
        "stops past the lease": (killer.stops, int(LEAST_STOPS * share)),
        "late results refused": (verdict.late_refused, int(LEAST_LATE * share)),
        "nodes": (verdict.nodes, options.nodes),
        "executions beyond nodes": (verdict.executions - verdict.nodes, 1),
    }
    return [f"{name}: {number}, {least} are needed" for name, (number, least) in found.items() if number < least]


def main() -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds in which an instance has to end")
    breaks = ["fencing", "ack-before-commit", "children-early"]
    parser.add_argument("--break", dest="broken", default="", choices=breaks, help="which promise to break")
    parser.add_argument("--verbose", action="store_true", help="print what the broker wrote last")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="chaos-") as folder:
        killer, verdict = run(options, Path(folder))
    print(
        f"seed {options.seed}: {killer.kills} kills ({killer.brokers} brokers, {killer.supervisors} supervisors, "
        f"{killer.children} children), {killer.stops} stops past the lease\n"
        f"nodes {verdict.nodes}, executions {verdict.executions}, late results refused {verdict.late_refused}\n"
        f"results recorded twice {verdict.recorded_twice}, acknowledged results lost {verdict.acknowledged_lost}, "
        f"wrong values {verdict.wrong}, children of attempts that did not count {verdict.strangers}"
    )
    problems = verdict.problems[:10] + shortfalls(options, killer, verdict)
    for problem in problems:
        print(f"VIOLATION {problem}")
    violated = bool(
        problems or verdict.recorded_twice or verdict.acknowledged_lost or verdict.wrong or verdict.strangers
    )
    print("FAILED" if violated else "the answer equals the plain computation; nothing lost, nothing doubled")
    return int(violated)


if __name__ == "__main__":
    sys.exit(main())
