"""The server of a PostgreSQL store crashes, and its synchronous replica takes its place while a broker commits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.postgres_replica import replicated

from .postgres_stage import Verdict, judged
from .progress import made

#: Commits between two promotions, at most.
BETWEEN = 60


def promotions(count: int, seed: int) -> Verdict:
    """Return what was found after that many promotions; one broker leads all the time."""
    with (
        replicated() as servers,
        judged(f"{servers.url}&schema=proof", count, seed) as stage,
        stage.working() as work,
        ThreadPoolExecutor(1) as thread,
    ):
        for _ in range(count):
            for _ in range(stage.chance.randint(1, BETWEEN)):
                work.commit()
            failing, longest = thread.submit(servers.fail_over), 0.0
            while not failing.done():
                started = time.monotonic()
                work.commit()
                longest = max(longest, time.monotonic() - started)
            failing.result()
            stage.verdict.seconds.append(longest)
            servers.restore()
            made()
    return stage.verdict
