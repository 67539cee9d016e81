"""An instance outlives the process that made it: one process spawns and exits, another resolves.

Run: python samples/reattach.py

The script starts itself twice. `reattach.py spawn` submits an instance, prints its ID and is gone; only then do
workers start. `reattach.py resolve ID` is a new process that knows the ID and nothing else: `attach` gives it the
instance and the promise of its entry point, typed as the definition says.
"""

import sys
from subprocess import PIPE, run

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class Squares(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, numbers: list[int]) -> int:
        return self.total([self.square(number) for number in numbers])

    @dagorama().syncfn
    def square(self, number: int) -> int:
        return number * number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


def spawn() -> None:
    instance, _ = Squares()([1, 2, 3, 4])
    print(instance.instance_id)


def resolve_elsewhere(instance_id: str) -> None:
    instance, promise = Squares.attach(instance_id)
    print(resolve(instance, promise, timeout=30))


def in_another_process(*arguments: str) -> str:
    return run([sys.executable, __file__, *arguments], check=True, stdout=PIPE, text=True).stdout.strip()


def main() -> None:
    with launch_broker(port=0):
        instance_id = in_another_process("spawn")
        print(f"Spawned {instance_id}; that process has ended")
        with launch_workers(2):
            answer = in_another_process("resolve", instance_id)
        print(f"Another process resolved it: {answer}")

    assert answer == "30"


if __name__ == "__main__":
    if sys.argv[1:] == ["spawn"]:
        spawn()
    elif sys.argv[1:2] == ["resolve"]:
        resolve_elsewhere(sys.argv[2])
    else:
        main()
