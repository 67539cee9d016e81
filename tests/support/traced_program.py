"""A program whose work is traced: it runs four instances on a worker, and prints their IDs and what a node logged."""

import importlib
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress

from dagorama import DAGDefinition, NodeFailed, batch, dagorama, resolve
from dagorama.retry import StaticRetry
from dagorama_broker.launch import launch_broker


class Joining(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> dict[str, str]:
        return self.join([self.part(number) for number in range(count)])

    @dagorama(queue_name="parts").syncfn
    def part(self, number: int) -> int:
        return number

    @dagorama(taint_name="GPU").syncfn
    def join(self, parts: list[int]) -> dict[str, str]:
        record = logging.getLogger().makeRecord("name", logging.INFO, "file", 1, "message", (), None)
        return {"trace": record.__dict__["dagorama_trace_id"], "span": record.__dict__["dagorama_span_id"]}


class Flaky(DAGDefinition):
    @dagorama(retry=StaticRetry(max_attempts=2, interval=0)).syncfn
    def entrypoint(self, file: str) -> str:
        if not os.path.exists(file):
            with open(file, "w"):
                raise ValueError("not yet")
        return "done"


class Chained(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.second(self.first())

    @dagorama().syncfn
    def first(self) -> int:
        return 1

    @dagorama().syncfn
    def second(self, value: int) -> int:
        return value + 1


class Speechless(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


class Failing(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        raise Speechless


def main(folder: str) -> None:
    import tests.support.traced_program as program

    with launch_broker(port=0):
        command = [sys.executable, "-m", "dagorama.worker", "--toleration", "GPU", "--import", os.environ["SETUP"]]
        with subprocess.Popen(command) as worker:
            joining, joined = program.Joining()(3)
            logged = resolve(joining, joined, timeout=60)
            flaky, done = program.Flaky()(f"{folder}/file")
            resolve(flaky, done, timeout=60)
            with batch():
                chained, value = program.Chained()()
                failing, failed = program.Failing()()
            resolve(chained, value, timeout=60)
            with suppress(NodeFailed):
                resolve(failing, failed, timeout=60)
            worker.terminate()
    instances = {"joining": joining, "flaky": flaky, "chained": chained, "failing": failing}
    print(json.dumps({"logged": logged, **{name: str(each.instance_id) for name, each in instances.items()}}))


if __name__ == "__main__":
    if os.environ.get("DAGORAMA_TRACES"):
        importlib.import_module(os.environ["SETUP"])
    main(sys.argv[1])
