"""The class of `test1.py` on dagorama: the four pieces run side by side on four workers.

Run: python samples/test2.py

`diff samples/test1.py samples/test2.py` shows what it takes: a base class, a decorator for each method, and the
launching of a broker and workers, which in a deployment are programs of their own.
"""

from collections import Counter
from time import sleep, time

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class MyTask(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> Counter[int]:
        results = [self.perform_work(i) for i in range(4)]
        return self.rollup_statuses(results)

    @dagorama().syncfn
    def perform_work(self, identifier: int) -> int:
        sleep(2)
        return identifier // 2

    @dagorama().syncfn
    def rollup_statuses(self, responses: list[int]) -> Counter[int]:
        return Counter(responses)


def main() -> None:
    with launch_broker():
        start = time()
        task = MyTask()
        instance, promise = task()

        with launch_workers(4, exit_on_completion=True) as workers:
            for worker in workers:
                worker.join()

        response = resolve(instance, promise)
        end = time()

    print(f"Response: {response} in {round(end - start, 2)}s")
    assert response == Counter({0: 2, 1: 2})


if __name__ == "__main__":
    main()
