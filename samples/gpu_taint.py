"""A tainted function waits for a worker that tolerates the taint, and delays no other node meanwhile.

Run: python samples/gpu_taint.py

In a deployment the second worker would be `worker --toleration GPU` on the machine that has one. Here both run in
this process, one after the other: `execute_worker(infinite_loop=False)` works until nothing is left that it may run.
"""

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import execute_worker
from dagorama_broker.launch import launch_broker


class Caption(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, names: list[str]) -> list[str]:
        return self.collect([self.infer(self.load(name)) for name in names])

    @dagorama().syncfn
    def load(self, name: str) -> bytes:
        print(f"  plain worker: load {name}")
        return name.encode()

    @dagorama(taint_name="GPU").syncfn
    def infer(self, image: bytes) -> str:
        print(f"  GPU worker: infer {image.decode()}")
        return f"a picture of a {image.decode()}"

    @dagorama().syncfn
    def collect(self, captions: list[str]) -> list[str]:
        return captions


def main() -> None:
    with launch_broker(port=0):
        instance, promise = Caption()(["cat", "dog"])

        print("A worker without tolerations:")
        execute_worker(infinite_loop=False)
        before = resolve(instance, promise)
        print(f"  answer so far: {before}")

        print("A worker that tolerates GPU:")
        execute_worker(infinite_loop=False, queue_tolerations=["GPU"])
        answer = resolve(instance, promise)
        print(f"  answer: {answer}")

    assert before is None
    assert answer == ["a picture of a cat", "a picture of a dog"]


if __name__ == "__main__":
    main()
