"""Both type checkers agree with this folder, refuse what is wrong and leave the original's programs alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Each test starts a type checker.
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Each line that ends in `# wrong` must be an error, and no other line may be one.
WRONG = """
from dagorama import (
    DAGDefinition, DAGPromise, Limit, Rate, RetryLater, StaticRetry, aresolve, as_completed, cancel, dagorama, outcome,
    put, resolve, retry_failed,
)


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        self.work()  # wrong
        self.work("1")  # wrong
        self.work(put("1"))  # wrong
        self.work(put([1]))  # wrong
        self.work(1, True)  # wrong
        self.work(1, thrice=True)  # wrong
        self.bare("1")  # wrong
        self.called("1")  # wrong
        self.work.original_fn(self, "1")  # wrong
        self.work.original(self, 1)  # wrong
        Task.work(self, "1")  # wrong
        text: str = self.work(1, greedy_execution=True)  # wrong
        self.work(1, greedy_execution="yes")  # wrong
        print(text)
        return self.work(number)  # wrong

    @dagorama().syncfn
    def work(self, number: int, *, twice: bool = False) -> int:
        return number

    @dagorama()
    def called(self, number: int) -> int:
        self.work(outcome(self.work(number)))  # wrong
        return outcome(self.work(number))  # wrong

    @dagorama
    def bare(self, number: int) -> int:
        return number


class Later(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> str:
        return await self.work(number)  # wrong

    @dagorama().asyncfn
    async def work(self, number: int) -> int:
        await self.work("1")  # wrong
        return self.work(number)  # wrong


def not_async() -> int:
    return 1


def calls() -> None:
    Task()("1")  # wrong
    Task()()  # wrong
    Task()(1, 2)  # wrong
    Later()()  # wrong
    instance, promise = Task()(1)
    other: DAGPromise[int] = promise  # wrong
    maybe: str = resolve(instance, promise)  # wrong
    number: int = resolve(instance, promise, timeout=None)  # wrong
    text: str = resolve(instance, promise, timeout=None)
    print(other, maybe, number, text)
    print(promise + 1)  # wrong
    print(promise.upper())  # wrong
    dagorama(1)  # wrong
    dagorama(retry=3)  # wrong
    dagorama(timeout="5")  # wrong
    dagorama("queue", "taint", None, 5)  # wrong
    dagorama(timout=5)  # wrong
    dagorama(priority=0.5)  # wrong
    dagorama(max_concurrency=1, concurrency_key=len("a"))  # wrong
    dagorama(rate=10)  # wrong
    dagorama(limit="api")  # wrong
    Rate(10, 60)  # wrong
    Limit("api", Rate(1, per=1))  # wrong
    StaticRetry(3, 1, retry_on=[ValueError])  # wrong
    StaticRetry(3, 1, give_up_on=(1,))  # wrong
    RetryLater("5")  # wrong
    whole: int = resolve(instance, outcome(promise), timeout=None)  # wrong
    for each in as_completed(instance, [promise]):
        number = resolve(instance, each, timeout=None)  # wrong
    as_completed(instance, promise)  # wrong
    cancel(instance, "all")  # wrong
    instance.cancel(1)  # wrong
    retry_failed(instance, "all")  # wrong
    instance.retry(1)  # wrong
    print(whole)
    StaticRetry("3", 1)  # wrong
    dagorama().asyncfn(not_async)  # wrong


async def async_calls() -> None:
    await Later()("1")  # wrong
    await Task()(1)  # wrong
    instance, promise = Task()(1)
    number: int = await aresolve(instance, promise)  # wrong
    aresolve(instance, promise) + 1  # wrong
    async for each in as_completed(instance, [promise]):
        number = each  # wrong
    print(number)
"""

# Written for dagorama 0.1.10: entry points say nothing of what they return.
ORIGINAL = """
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id, resolve
from dagorama.retry import ExponentialRetry, StaticRetry
from dagorama.runner import CodeMismatchException, execute_worker, execute_worker_async, launch_workers
from dagorama.serializer import register_definition
from dagorama_broker.launch import launch_broker

from collections import Counter
from time import sleep, time

class MyTask(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self):
        results = [
            self.perform_work(i)
            for i in range(4)
        ]

        return self.rollup_statuses(results)

    @dagorama(queue_name="work", taint_name="GPU", retry=StaticRetry(max_attempts=2, interval=1)).syncfn
    def perform_work(self, identifier: int) -> int:
        sleep(2)
        return identifier // 2

    @dagorama(retry=ExponentialRetry(max_attempts=2, base_interval=2)).syncfn
    def rollup_statuses(self, responses: list[int]):
        return Counter([status for status in responses])

class Later(DAGDefinition):
    def __init__(self, number: int):
        self.number = number

    @dagorama().asyncfn
    async def entrypoint(self, *args, **kwargs):
        return await self.work(self.number)

    @dagorama().asyncfn
    async def work(self, number: int):
        return number

def main()RETURNS:
    with launch_broker():
        start = time()
        task_definition = MyTask()
        instance, promise = task_definition()

        with launch_workers(4, exit_on_completion=True) as workers:
            # Wait for each to quit
            for worker in workers:
                worker.join()
        response = resolve(instance, promise)
        end = time()

    print(f"Response: {response} in {round(end-start, 2)}s")
    assert response == Counter({0: 2, 1: 2})

def on_one_machine()RETURNS:
    dag = Later(number=10)
    register_definition(dag)
    instance = DAGInstance(generate_instance_id(), MyTask())
    instance.entrypoint()
    try:
        execute_worker(infinite_loop=False, catch_exceptions=False, queue_tolerations=["GPU"])
    except CodeMismatchException:
        print("deploy")

async def later()RETURNS:
    instance, promise = await Later(3)()
    await execute_worker_async(include_queues=["test_queue"], infinite_loop=False, catch_exceptions=False)
    assert resolve(instance, promise) == 10

if __name__ == "__main__":
    main()
"""


#: The strict flags that mypy does not set by itself, for the programs for the original. In one run with the rest, with
#: the settings of the project, mypy finds the library in the cache of `make lint`.
PLAIN = """
[[tool.mypy.overrides]]
module = ["original", "original_typed"]
check_untyped_defs = false
disallow_any_generics = false
disallow_incomplete_defs = false
disallow_subclassing_any = false
disallow_untyped_calls = false
disallow_untyped_decorators = false
disallow_untyped_defs = false
extra_checks = false
implicit_reexport = true
strict_equality = false
warn_return_any = false
warn_unused_ignores = false
"""


def mypy(settings: Path, *files: Path) -> list[str]:
    """Return its report on these files, an error a line."""
    settings.write_text((ROOT / "pyproject.toml").read_text() + PLAIN)
    options = ["--no-error-summary", "--hide-error-context", f"--config-file={settings}"]
    command = [sys.executable, "-m", "mypy", *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.splitlines()


def pyright(*files: Path) -> list[tuple[str, int, str]]:
    """File, line and text of each error."""
    checker = str(Path(sys.executable).with_name("basedpyright"))
    command = [checker, "--project", str(ROOT), "--outputjson", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    report = json.loads(done.stdout)
    return [
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1, found["message"])
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    ]


def lines_marked_wrong() -> set[int]:
    return {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    return file


@pytest.fixture
def originals(tmp_path: Path) -> list[Path]:
    """Programs for the original whose functions say that they return nothing, or do not say what they return."""
    files = [tmp_path / "original.py", tmp_path / "original_typed.py"]
    for file, returns in zip(files, ("", " -> None"), strict=True):
        file.write_text(ORIGINAL.replace("RETURNS", returns))
    return files


# One run of a checker for all files: most of its time goes into the library.


def test_mypy_agrees_with_this_folder_refuses_exactly_what_is_wrong_and_takes_programs_for_the_original(
    wrong: Path, originals: list[Path], tmp_path: Path
) -> None:
    report = mypy(tmp_path / "settings.toml", HERE, wrong, *originals)
    refused = {int(number) for line in report for number in re.findall(r"wrong\.py:(\d+): error", line)}
    assert refused == lines_marked_wrong(), report
    assert [line for line in report if "error" in line and "wrong.py:" not in line] == []


def test_pyright_agrees_with_this_folder_refuses_exactly_what_is_wrong_and_takes_programs_for_the_original(
    wrong: Path, originals: list[Path]
) -> None:
    errors = pyright(HERE, wrong, *originals)
    assert {line for file, line, _ in errors if file == wrong.name} == lines_marked_wrong(), errors
    assert [error for error in errors if error[0] != wrong.name] == []
