"""A client whose program gevent has patched, as a web server with gevent workers is."""

import subprocess
import sys

PATCH = """
from gevent import monkey
monkey.patch_all()
"""
IMPORTS = """
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.client.results import resolve_all
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker
"""
PROGRAM = """
import gevent

class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number

def one(number):
    return resolve(*Task()(number), timeout=30)

with launch_broker(port=0):
    unserved = Task()(0)
    turns = 0
    def turn():
        global turns
        while True:
            gevent.sleep(0.001)
            turns += 1
    turning = gevent.spawn(turn)
    try:
        resolve(*unserved, timeout=0.2)
    except TimeoutError:
        print("timed out", turns > 10)
    with launch_workers(1):
        spawned = [gevent.spawn(one, number) for number in range(20)]
        gevent.joinall(spawned)
        print([each.value for each in spawned] == list(range(20)))
        print(resolve_all([Task()(number) for number in range(20)], timeout=30) == list(range(20)))
"""
#: what it says of itself, as far as anybody asks
EVENTLET = """
import sys, types
sys.modules["eventlet.patcher"] = types.SimpleNamespace(is_monkey_patched=lambda name: True)
"""
CALL = "from dagorama.client.connection import connection; connection()"


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_greenlets_call_and_wait_while_others_go_on() -> None:
    done = ran(PATCH + IMPORTS + PROGRAM)
    assert (done.stdout.splitlines(), done.stderr) == (["timed out True", "True", "True"], "")


def test_a_program_that_is_patched_after_the_import_is_told() -> None:
    done = ran(IMPORTS + PATCH + CALL)
    assert "SettingsError: gevent has patched this process after dagorama was imported" in done.stderr


def test_a_program_that_eventlet_has_patched_is_told() -> None:
    done = ran(EVENTLET + CALL)
    assert "SettingsError: eventlet has patched the sockets of this process" in done.stderr
