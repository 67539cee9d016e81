"""Ray: two processors' worth of workers and its shared-memory object store. Nothing is kept when its head ends."""

from __future__ import annotations

import logging

import ray
from measuring import (
    MIB,
    nothing,
    report_chain,
    report_fan,
    report_many,
    report_round_trip,
    report_values,
    square,
    step,
    total,
    turned,
)


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    one, summed, stepped, squared, turn = (ray.remote(each) for each in (nothing, total, step, square, turned))

    @ray.remote
    def gathered(*numbers: int) -> int:
        return sum(numbers)

    def fan(width: int) -> int:
        return ray.get(summed.remote(ray.get([one.remote(number) for number in range(width)])))

    def chain(length: int) -> int:
        value = stepped.remote(0)
        for _ in range(length - 1):
            value = stepped.remote(value)
        return ray.get(value)

    def many(instances: int) -> list[int]:
        made = [gathered.remote(*[squared.remote(n + offset) for offset in range(4)]) for n in range(instances)]
        return ray.get(made)

    fan(64)
    report_fan(20_000, fan)
    report_chain(200, chain)
    report_round_trip(300, lambda number: ray.get(one.remote(number)))
    report_many(1000, many)
    report_values(32, 4 * MIB, lambda blocks: ray.get([turn.remote(block) for block in blocks]))
    ray.shutdown()


if __name__ == "__main__":
    main()
