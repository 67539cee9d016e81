"""The pytest plugin: fixtures, the marker `dagorama`, and the option `--dagorama-mode`.

The rule: it is loaded into every run of pytest on the machine, so that at first it imports nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dagorama.runner import WorkerHandle
    from dagorama_broker.launch import LaunchedBroker
    from dagorama_testing.processes import Processes
    from dagorama_testing.world import World, WorldClock

INLINE, LOCAL, REAL = MODES = ("inline", "local", "real")
MARKER = (
    "dagorama(mode=None): run the graphs of the test inline, on a local broker with workers, or on the real broker of "
    "the environment; without a mode as --dagorama-mode says"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("dagorama").addoption(
        "--dagorama-mode", choices=MODES, default=INLINE,
        help="where tests with the marker `dagorama` run their graphs: in the thread of the test (inline, the "
        "default), on a broker and workers that are launched for the session (local), or on the broker that "
        "DAGORAMA_HOST and DAGORAMA_PORT name, and its workers (real)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def mode_of(marker: pytest.Mark, default: str) -> str:
    """Return the mode of a test with this marker. Raises ValueError if the marker is wrong."""
    mode: object = marker.kwargs.get("mode", marker.args[0] if marker.args else None)
    if len(marker.args) + len(marker.kwargs) > 1 or marker.kwargs.keys() - {"mode"} or mode not in (None, *MODES):
        given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
        raise ValueError(f"@pytest.mark.dagorama({given}) is wrong: pass one mode, {', '.join(MODES)}, or none")
    return str(mode or default)


@pytest.fixture(autouse=True)
def _dagorama_mode(request: pytest.FixtureRequest) -> None:
    """Prepare the broker of a test that has the marker."""
    marker = request.node.get_closest_marker("dagorama")
    if marker is None:
        return
    try:
        mode = mode_of(marker, str(request.config.getoption("--dagorama-mode")))
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    if mode == INLINE:
        request.getfixturevalue("dagorama_inline")
    elif mode == LOCAL:
        request.getfixturevalue("dagorama_workers")


@pytest.fixture
def dagorama_inline() -> Iterator[World]:
    """Make an inline world, in which a worker takes every queue and tolerates every taint; see `inline()`."""
    from dagorama_testing.world import inline

    with inline() as world:
        yield world


@pytest.fixture
def dagorama_clock(dagorama_inline: World) -> WorldClock:
    """Return the clock of `dagorama_inline`, which stands still until the test moves it."""
    return dagorama_inline.clock


@pytest.fixture(scope="session")
def _dagorama_processes() -> Iterator[Processes]:
    from dagorama_testing.processes import Processes

    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture
def dagorama_broker(_dagorama_processes: Processes) -> Iterator[LaunchedBroker]:
    """Return a broker process that all tests of the session share, with a store in memory and a key of its own.

    During the test the environment names it. After the test its unfinished instances are cancelled.
    """
    with _dagorama_processes.environment():
        yield _dagorama_processes.broker
        _dagorama_processes.cancel_unfinished()


@pytest.fixture
def dagorama_workers(dagorama_broker: LaunchedBroker, _dagorama_processes: Any) -> list[WorkerHandle]:
    """Return two worker processes of `dagorama_broker`, which all tests of the session share."""
    workers: list[WorkerHandle] = _dagorama_processes.workers()
    return workers
