"""A pool on Ray: an actor with CPUs of its own for each worker, and one with a GPU for nodes that need it.

Run: python samples/pool_ray.py
It needs `pip install 'dagorama[ray]'`.

`ray.init` starts Ray on this machine, with a GPU in its books only. On a cluster, call `ray.init(address="auto")`, and
set DAGORAMA_HOST to a name of the broker that the cluster's machines reach: see docs/how-to/pools.md.
"""

import os

import ray  # pyright: ignore[reportMissingImports]  # an extra

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.pools import RayPool
from dagorama_broker.launch import launch_broker


class Captions(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, names: list[str]) -> list[str]:
        return self.collect([self.infer(self.load(name)) for name in names])

    @dagorama().syncfn
    def load(self, name: str) -> bytes:
        return name.encode()

    @dagorama(taint_name="GPU").syncfn
    def infer(self, image: bytes) -> str:
        return f"a picture of a {image.decode()}, by GPU {os.environ['CUDA_VISIBLE_DEVICES']}"

    @dagorama().syncfn
    def collect(self, captions: list[str]) -> list[str]:
        return captions


def main() -> None:
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)
    with (
        launch_broker(port=0),
        RayPool(name="plain", num_cpus=1, max=1, idle=5),
        RayPool(name="gpu", num_cpus=1, num_gpus=1, max=1, idle=5),
    ):
        instance, promise = Captions()(["cat", "dog"])
        for caption in resolve(instance, promise, timeout=120):
            print(caption)


if __name__ == "__main__":
    # Workers import the graph, so it must be in a module, and not in the program that was started.
    import pool_ray

    pool_ray.main()
