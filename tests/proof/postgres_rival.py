"""A process that waits until it leads a PostgreSQL store, and then commits until it is killed or replaced.

It prints "waits", and with its first commit "commits" and the seconds of the monotonic clock. When it is told on its
standard input that it was replaced, no commit that begins later may succeed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dagorama_broker.errors import Deposed
from dagorama_broker.store.postgres import keeper
from dagorama_broker.store.postgres.store import PostgresStore

from .postgres_workload import Ledger, Workload
from .progress import patience

#: Codes with which it ends: it learned that it was replaced, or committed after that.
REPLACED, COMMITTED_LATE = 3, 4
#: Seconds between two commits.
PAUSE = 0.002


def lead(options: Namespace) -> int:
    if options.leave_sessions:  # as behind a pooler: only the fence keeps the old leader from committing
        keeper.end_sessions = lambda session, epoch: None  # type: ignore[attr-defined]  # imported
    store = PostgresStore(options.url, options.values, patience(60), options.lease)
    store.open()
    print("waits", flush=True)
    epoch = store.take()
    replaced, told = threading.Event(), threading.Event()
    if not options.unrenewed:
        store.keep(lambda why: replaced.set())
    threading.Thread(target=lambda: sys.stdin.readline() and told.set(), daemon=True).start()
    work = Workload(store, epoch, Ledger(options.ledger), random.Random(options.seed))
    while not replaced.wait(PAUSE):
        is_late = told.is_set()
        try:
            work.commit()
        except Deposed:
            break
        if is_late:
            return COMMITTED_LATE
        if work.acknowledged == 1:
            print(f"commits {time.monotonic()}", flush=True)
    return REPLACED


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.postgres_rival")
    parser.add_argument("url")
    parser.add_argument("values", type=Path)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lease", type=float, required=True, help="seconds")
    parser.add_argument("--unrenewed", action="store_true", help="do not renew the lease")
    parser.add_argument("--leave-sessions", action="store_true", help="do not end the sessions of the leader before")
    return lead(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
