"""Ray: a head with two processors' worth of workers and its object store in shared memory.

As its documentation recommends: results are asked for together, after all tasks were submitted; references are passed
on instead of values; large arguments are put into the store once. Nothing is kept when the head ends.
"""

from __future__ import annotations

import logging
import os
from typing import Self

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else it warns of a default that will change

import ray

from peers import functions
from peers.functions import Summary
from peers.parts import Pipeline, by_callers


def gathered(*numbers: int) -> int:
    return functions.total(list(numbers))


class Ray:
    def __enter__(self) -> Self:
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        for function in (*functions.NODES, gathered):
            setattr(self, f"_{function.__name__}", ray.remote(function).remote)
        return self

    def __exit__(self, *raised: object) -> None:
        ray.shutdown()

    def version(self) -> str:
        return f"Ray {ray.__version__}"

    def one(self, number: int) -> int:
        return ray.get(self._nothing(number))

    def fan(self, width: int) -> int:
        return ray.get(self._total(ray.get([self._nothing(number) for number in range(width)])))

    def chain(self, length: int) -> int:
        value = self._step(0)
        for _ in range(length - 1):
            value = self._step(value)
        return ray.get(value)

    hop = chain

    def _small(self, number: int) -> ray.ObjectRef:
        return self._gathered(*[self._square(number + offset) for offset in range(4)])

    def small(self, instances: int, callers: int) -> list[int]:
        return ray.get(by_callers(self._small, instances, callers))

    def together(self, instances: int) -> list[int]:
        """Submit one after the other: no call submits several graphs."""
        return self.small(instances, 1)

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        return ray.get([self._turned(ray.put(block)) for block in blocks])

    def pipeline(self, wanted: Pipeline) -> Summary:
        block = self._begin(wanted.pattern, wanted.size)
        for number in range(wanted.handed):
            block = self._hand_on(block, number)
        return ray.get(self._summary(block, wanted.handed))
