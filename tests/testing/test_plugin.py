"""The pytest plugin, in projects of their own, in which nothing but the installed package is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dagorama_testing.plugin import mode_of

FLOW = """
from dagorama import DAGDefinition, StaticRetry, dagorama


class Orders(DAGDefinition):
    @dagorama
    def entrypoint(self, texts: list[str]) -> float:
        return self.total([self.price(text) for text in texts])

    @dagorama(retry=StaticRetry(max_attempts=3, interval=3600))
    def price(self, text: str) -> float:
        return float(text)

    @dagorama
    def total(self, prices: list[float]) -> float:
        return sum(prices)
"""
TESTS = """
import os
import unittest

import pytest

from dagorama import aresolve, resolve
from dagorama_testing import run_inline
from shop.flow import Orders


def test_orders_are_added():
    assert run_inline(Orders(), ["1.50", "2.50"]) == 4.0


def test_a_wrong_price_is_reported():
    with pytest.raises(ValueError, match="could not convert"):
        run_inline(Orders(), ["cheap"])


def test_prices_are_asked_for_again(dagorama_inline, dagorama_clock):
    dagorama_inline.fail(Orders.price, ConnectionError, times=2)
    instance, promise = Orders()(["3"])
    dagorama_clock.advance(7199)
    assert resolve(instance, promise) is None
    dagorama_clock.advance(1)
    assert resolve(instance, promise) == 3.0


@pytest.mark.dagorama
async def test_graphs_are_awaited():
    assert await aresolve(*Orders()(["1", "3"]), timeout=60) == 4.0


@pytest.mark.dagorama
class TestOrders(unittest.TestCase):
    def test_orders_of_unittest(self):
        self.assertEqual(resolve(*Orders()(["4"]), timeout=60), 4.0)


@pytest.mark.dagorama
def test_graphs_run_where_the_option_says(request):
    assert resolve(*Orders()(["1", "2"]), timeout=60) == 3.0
    assert ("DAGORAMA_HOST" in os.environ) == (request.config.getoption("--dagorama-mode") == "local")


@pytest.mark.dagorama(mode="inline")
@pytest.mark.parametrize("number", range(20))
def test_worlds_are_apart(number, dagorama_inline):
    assert dagorama_inline.runs == []
    assert resolve(*Orders()([str(number)]), timeout=5) == number
"""
PROCESSES = """
import os

import pytest

from dagorama import DAGDefinition, dagorama, resolve
from dagorama.client.connection import connection

seen = {}


class Waiting(DAGDefinition):
    @dagorama(taint_name="RARE")
    def entrypoint(self) -> int:
        return 1


def test_the_environment_names_the_broker(dagorama_broker):
    assert os.environ["DAGORAMA_PORT"] == str(dagorama_broker.port)
    seen["pid"] = dagorama_broker.pid
    Waiting()()
    assert len(connection().list_instances(unfinished=True).instances) == 1


def test_the_environment_is_restored():
    assert "DAGORAMA_PORT" not in os.environ
    assert "DAGORAMA_SIGNING_KEYS" not in os.environ


def test_the_broker_is_shared_and_unfinished_instances_were_cancelled(dagorama_broker):
    assert dagorama_broker.pid == seen["pid"]
    assert not connection().list_instances(unfinished=True).instances


def test_workers_run_local_definitions(dagorama_workers):
    class Where(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return os.getpid()

    assert len(dagorama_workers) == 2
    assert resolve(*Where()(), timeout=60) not in (None, os.getpid())
"""


class Project:
    """A folder with a package and its tests."""

    def __init__(self, folder: Path, tests: str) -> None:
        self.folder = folder
        for name, text in {"shop/__init__.py": "", "shop/flow.py": FLOW, "tests/test_flow.py": tests}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        (folder / "pyproject.toml").write_text(
            '[tool.pytest.ini_options]\naddopts = "--strict-markers"\npythonpath = "."\nfilterwarnings = ["error"]\n'
            'asyncio_mode = "auto"\nasyncio_default_fixture_loop_scope = "function"\n'
        )

    def run(self, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DAGORAMA_", "PYTEST_"))}
        # The plugin of Hypothesis takes most of the start of pytest.
        plugins = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        command = [sys.executable, "-P", "-m", "pytest", "-q", *plugins, *options]
        given = {"HOME": str(self.folder), **(environment or {})}
        return subprocess.run(command, cwd=self.folder, env=own | given, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, TESTS)


@pytest.mark.early
@pytest.mark.slow
def test_a_project_is_tested_in_several_processes_without_a_broker(project: Project) -> None:
    ended = project.run("-n", "2", "--dist", "loadscope")
    assert "26 passed" in ended.stdout, ended.stdout + ended.stderr
    assert not (project.folder / ".config").exists()  # no key of the user was made


@pytest.mark.slow
def test_the_same_tests_run_on_real_processes(project: Project) -> None:
    ended = project.run("--dagorama-mode", "local")
    assert "26 passed" in ended.stdout, ended.stdout + ended.stderr


def test_in_the_real_mode_graphs_go_to_the_broker_of_the_environment(tmp_path: Path) -> None:
    text = """
import os
import pytest
from dagorama.client.connection import connection

@pytest.mark.dagorama
def test_it():
    assert not connection().is_inline
    assert (os.environ["DAGORAMA_HOST"], os.environ["DAGORAMA_PORT"]) == ("broker.invalid", "1234")
"""
    ended = Project(tmp_path, text).run(
        "--dagorama-mode", "real", environment={"DAGORAMA_HOST": "broker.invalid", "DAGORAMA_PORT": "1234"}
    )
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_fixtures_of_processes_leave_nothing_behind(tmp_path: Path) -> None:
    ended = Project(tmp_path, PROCESSES).run()
    assert "4 passed" in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "mark",
    [
        pytest.mark.dagorama(mode="slow"),
        pytest.mark.dagorama("slow"),
        pytest.mark.dagorama(speed=1),
        pytest.mark.dagorama("inline", "local"),
        pytest.mark.dagorama("inline", mode="local"),
    ],
)
def test_a_wrong_marker_is_refused(mark: pytest.MarkDecorator) -> None:
    with pytest.raises(ValueError, match="pass one mode, inline, local, real, or none"):
        mode_of(mark.mark, "inline")


def test_a_wrong_marker_fails_its_test_only(tmp_path: Path) -> None:
    text = "import pytest\n\n@pytest.mark.dagorama('slow')\ndef test_it():\n    pass\n\ndef test_other():\n    pass\n"
    ended = Project(tmp_path, text).run()
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert "@pytest.mark.dagorama('slow') is wrong" in ended.stdout
    assert "Traceback" not in ended.stdout
    assert "1 passed, 1 error" in ended.stdout


def test_tests_without_dagorama_need_no_plugin(tmp_path: Path) -> None:
    ended = Project(tmp_path, "def test_it():\n    pass\n").run("-p", "no:dagorama")
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_the_plugin_imports_nothing_but_pytest() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import dagorama_testing.plugin;"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['dagorama_testing', 'dagorama_testing.plugin']"
