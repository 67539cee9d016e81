"""The smallest program: a broker, one worker, one node, and its answer.

Run: python samples/one_node.py

The entry point is itself the only node. `resolve` with a timeout waits for the value; without one it answers at
once, with None for "not yet".
"""

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class Greeting(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, name: str) -> str:
        return f"Hello, {name}!"


def main() -> None:
    with launch_broker(port=0), launch_workers(1):
        instance, promise = Greeting()("dagorama")
        answer = resolve(instance, promise, timeout=30)

    print(answer)
    assert answer == "Hello, dagorama!"


if __name__ == "__main__":
    main()
