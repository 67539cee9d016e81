"""Programs as users of dagorama 0.1.10 wrote them. Run with that release's client, and with this library.

    python -c "import original_programs; original_programs.main('pieces')"

Each checks itself. DAGORAMA_HOST and DAGORAMA_PORT are the address of the broker.
"""

import asyncio
import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id, resolve
from dagorama.retry import ExponentialRetry, StaticRetry
from dagorama.runner import CodeMismatchException, execute_worker, execute_worker_async, launch_workers
from dagorama.serializer import register_definition


def work(**options):
    execute_worker(infinite_loop=False, catch_exceptions=False, **options)


def until_resolved(instance, promise, seconds=30):
    until = monotonic() + seconds
    while (value := resolve(instance, promise)) is None:
        assert monotonic() < until, "it took too long"
        sleep(0.05)
    return value


# --- the README's program -----------------------------------------------------------------------------


class Pieces(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self):
        results = [self.perform_work(i) for i in range(4)]

        return self.rollup_statuses(results)

    @dagorama().syncfn
    def perform_work(self, identifier: int) -> int:
        sleep(0.1)
        return identifier // 2 + 1  # that release loses a result of 0

    @dagorama().syncfn
    def rollup_statuses(self, responses):
        return Counter(responses)


def pieces():
    instance, promise = Pieces()()
    assert resolve(instance, promise) is None
    with launch_workers(2):
        assert until_resolved(instance, promise) == Counter({1: 2, 2: 2})


def pieces_in_this_process():
    instance, promise = Pieces()()
    work()
    assert resolve(instance, promise) == Counter({1: 2, 2: 2})


def pieces_by_a_worker_elsewhere():
    instance, promise = Pieces()()
    assert until_resolved(instance, promise) == Counter({1: 2, 2: 2})


# --- graphs -------------------------------------------------------------------------------------------


class Branches(DAGDefinition):
    """The size of a number decides at run time what is made of it."""

    @dagorama().syncfn
    def entrypoint(self, number, *, limit=10):
        if number < limit:
            return self.entrypoint(self.double(number), limit=limit)
        return self.finish([number, {"kept": self.double(number)}])

    @dagorama().syncfn
    def double(self, number):
        return self.helper(number)

    @dagorama().syncfn
    def finish(self, parts):
        return parts[0], parts[1]["kept"]

    def helper(self, number):
        assert isinstance(self, DAGInstance)
        return number * 2


def branches():
    instance, promise = Branches()(3)
    work()
    assert resolve(instance, promise) == (12, 24)


class Diamond(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number):
        top = self.add(number, 1)
        return self.total([self.add(top, 10), self.add(top, other=100)])

    @dagorama().syncfn
    def add(self, number, other):
        return number + other

    @dagorama().syncfn
    def total(self, numbers):
        return sum(numbers)


def diamonds_of_several_instances():
    launched = [Diamond()(number) for number in range(5)]
    work()
    assert [resolve(*each) for each in launched] == [112, 114, 116, 118, 120]


# --- queues and taints --------------------------------------------------------------------------------


class Routed(DAGDefinition):
    @dagorama(queue_name="special").syncfn
    def entrypoint(self):
        return 10


class RoutedAsync(DAGDefinition):
    @dagorama(queue_name="special").asyncfn
    async def entrypoint(self):
        await asyncio.sleep(0.01)
        return 20


class Tainted(DAGDefinition):
    @dagorama(taint_name="GPU").syncfn
    def entrypoint(self):
        return 30


def queues():
    elsewhere = Routed()()
    work(include_queues=["another"])
    work(exclude_queues=["special"])
    assert resolve(*elsewhere) is None
    work(include_queues=["special"])
    assert resolve(*elsewhere) == 10


def async_functions():
    async def spawn_and_work():
        launched = await RoutedAsync()()
        await execute_worker_async(include_queues=["special"], infinite_loop=False, catch_exceptions=False)
        return launched

    assert resolve(*asyncio.run(spawn_and_work())) == 20


def taints():
    launched = Tainted()()
    work()
    assert resolve(*launched) is None
    work(queue_tolerations=["GPU"])
    assert resolve(*launched) == 30


# --- failures -----------------------------------------------------------------------------------------


class Flaky(DAGDefinition):
    """Fails once for each file that is not there."""

    @dagorama(retry=StaticRetry(max_attempts=2, interval=1)).syncfn
    def entrypoint(self, file):
        return self.again(file) if fails_once(file + ".first") else None

    @dagorama(retry=ExponentialRetry(max_attempts=2, base_interval=1)).syncfn
    def again(self, file):
        return fails_once(file + ".second")


def fails_once(file):
    if not Path(file).exists():
        Path(file).touch()
        raise ValueError(f"{file} was not there")
    return "at last"


def retries():
    launched = Flaky()(os.environ["SCRATCH"] + "/mark")
    for _ in range(3):
        execute_worker(infinite_loop=False)
        sleep(1.2)
    assert resolve(*launched) == "at last"


class Failing(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self):
        raise KeyError("on purpose")


def what_was_raised_is_raised():
    Failing()()
    raised = None
    try:
        work()
    except KeyError as error:
        raised = error
    assert "on purpose" in str(raised)


@contextmanager
def another_name(function):
    name, function.__name__ = function.__name__, "another_name"
    try:
        yield
    finally:
        function.__name__ = name


def other_code():
    Routed()()
    with another_name(Routed.entrypoint.original_fn):
        try:
            work()
        except CodeMismatchException:
            return
    raise AssertionError("other code was run")


# --- definitions --------------------------------------------------------------------------------------


class Configured(DAGDefinition):
    def __init__(self, number, called=None):
        self.number = number
        self.called = called

    @dagorama().syncfn
    def entrypoint(self):
        assert isinstance(self, DAGInstance)
        return self.number + self.called()


class Callable:
    def __call__(self):
        return 5


def registered_definitions():
    definition = Configured(10, called=Callable())
    launched = definition()
    register_definition(definition)
    work()
    assert resolve(*launched) == 15


def instances_by_hand():
    instance = DAGInstance(generate_instance_id(), Diamond())
    promise = instance.entrypoint(1)
    work()
    assert resolve(instance, promise) == 114


class Halves(DAGDefinition):
    @dagorama(queue_name="first").syncfn
    def entrypoint(self):
        return self.second(3)

    @dagorama(queue_name="second").syncfn
    def second(self, number):
        return number * 7


def across_a_restart():
    instance, promise = Halves()()
    work(include_queues=["first"])
    print("half done", flush=True)
    sys.stdin.readline()
    work(include_queues=["second"])
    assert resolve(instance, promise) == 21


PROGRAMS = [
    pieces, pieces_in_this_process, branches, diamonds_of_several_instances, queues, async_functions, taints, retries,
    what_was_raised_is_raised, other_code, registered_definitions, instances_by_hand,
]  # fmt: skip


def main(name):
    globals()[name]()
    print(f"{name}: as expected, with {sys.modules['dagorama.definition'].__file__}")
