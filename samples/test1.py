"""Four slow pieces of work and a roll-up, in plain Python, one after the other.

Run: python samples/test1.py

The starting point. `test2.py`, in the same folder, is the same class on dagorama; compare the two.
"""

from collections import Counter
from time import sleep, time


class MyTask:
    def entrypoint(self) -> Counter[int]:
        results = [self.perform_work(i) for i in range(4)]
        return self.rollup_statuses(results)

    def perform_work(self, identifier: int) -> int:
        sleep(2)
        return identifier // 2

    def rollup_statuses(self, responses: list[int]) -> Counter[int]:
        return Counter(responses)


def main() -> None:
    start = time()
    task = MyTask()
    response = task.entrypoint()
    end = time()

    print(f"Response: {response} in {round(end - start, 2)}s")
    assert response == Counter({0: 2, 1: 2})


if __name__ == "__main__":
    main()
