"""KEDA's loop and the autoscaler of Kubernetes for one pool, with processes as pods, and times that are shorter.

A ScaledObject: a push of true starts the first pod at once. The metric is asked for again and again, and pods are
started, or told to go, until there is one for each target. The last one goes when the pool has been inactive for a
time. The pods that go are chosen without a look at what they run. A ScaledJob starts what is missing, and tells none to
go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil

import grpc

from tests.support.forks import Fork
from tests.support.keda import ExternalScaler

#: Seconds between two questions, and without demand until the last pod goes; on a cluster 15 and 300.
POLL, COOLDOWN = 0.1, 0.5
#: Seconds within which a pod that was told to go, and may, has gone.
PATIENCE = 60.0


class Pod:
    """A process that stands for a pod."""

    def __init__(self, process: Fork) -> None:
        self.pid = process.pid
        self.code: int | None = None  #: its exit code; None: it runs
        self._process = process
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def _wait(self) -> None:
        self.code = self._process.wait()

    def end(self) -> None:
        """Tell it to go, as Kubernetes does at first."""
        self._process.terminate()

    def ended(self) -> int | None:
        """Wait until it has gone, and return its exit code."""
        self._waiting.join(PATIENCE)
        return self.code

    def kill(self) -> None:
        self._process.kill()
        self._waiting.join()


class Pool:
    """The pods of one pool, and the loop that scales them."""

    def __init__(self, scaler: ExternalScaler, start: Callable[[], Fork], most: int, *, jobs: bool = False) -> None:
        self._scaler, self._start, self._most, self._jobs = scaler, start, most, jobs
        self._stopped, self._active = threading.Event(), threading.Event()
        self.pods: list[Pod] = []  #: that were not told to go; of jobs, all that have not ended
        self.ended: list[Pod] = []  #: pods that were told to go, or have gone
        self.first_at = 0.0  #: when the first pod was started
        self.wanted: list[int] = []  #: the numbers of pods that were wanted, each time another one
        self.chosen: Callable[[list[Pod]], list[Pod]] = list  #: the order in which pods are told to go
        self._inactive_since: float | None = None

    def run(self) -> None:
        """Scale until the pool is stopped."""
        pushes = threading.Thread(target=self._follow, daemon=True)
        if not self._jobs:
            pushes.start()
        while not self._stopped.wait(POLL if self.pods or self._jobs else 0):
            if not self.pods and not self._jobs:
                self._wait_for_push()
            self._turn()

    def stop(self) -> None:
        self._stopped.set()
        self._active.set()

    def _wait_for_push(self) -> None:
        self._active.wait()
        self._active.clear()
        if not self._stopped.is_set():
            self._add(1)

    def _follow(self) -> None:
        stream = self._scaler.stream()
        with suppress(grpc.RpcError):  # the broker ends it with the test
            for told in stream:
                if told.result:
                    self._active.set()

    def _turn(self) -> None:
        self._notice_ends()
        (spec,) = self._scaler.metric_spec().metricSpecs
        (value,) = self._scaler.metrics(spec.metricName).metricValues
        wanted = min(self._most, ceil(value.metricValueFloat / spec.targetSizeFloat))
        if self.wanted[-1:] != [wanted]:
            self.wanted.append(wanted)
        self._add(wanted - len(self.pods))
        if not self._jobs:
            # The autoscaler of Kubernetes keeps one pod, which KEDA ends after a time without activity.
            self._end(len(self.pods) - max(wanted, 0 if self._is_over() else 1))

    def _is_over(self) -> bool:
        if self._scaler.is_active().result:
            self._inactive_since = None
            return False
        self._inactive_since = self._inactive_since or time.monotonic()
        return time.monotonic() - self._inactive_since >= COOLDOWN

    def _add(self, count: int) -> None:
        for _ in range(count):
            self.first_at = self.first_at or time.monotonic()
            self.pods.append(Pod(self._start()))

    def _end(self, count: int) -> None:
        if count <= 0:
            return
        for pod in self.chosen(self.pods)[:count]:
            pod.end()
            self.pods.remove(pod)
            self.ended.append(pod)

    def _notice_ends(self) -> None:
        for pod in [pod for pod in self.pods if pod.code is not None]:
            self.pods.remove(pod)
            self.ended.append(pod)


@contextmanager
def scaling(pool: Pool) -> Iterator[Pool]:
    """Scale a pool for the length of the block, and then end all of its pods."""
    loop = threading.Thread(target=pool.run, daemon=True)
    loop.start()
    try:
        yield pool
    finally:
        pool.stop()
        loop.join()
        for pod in (*pool.pods, *pool.ended):
            pod.kill()
