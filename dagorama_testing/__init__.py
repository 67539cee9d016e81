"""Test graphs without a broker: on the real scheduler, in one thread, with a clock that the test moves.

The rule: the names below and no others; each is loaded when it is first used, so that the pytest plugin is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagorama_testing.connection import NothingHappens as NothingHappens
    from dagorama_testing.records import NodeRun as NodeRun
    from dagorama_testing.records import SimulatedWorker as SimulatedWorker
    from dagorama_testing.running import run_inline as run_inline
    from dagorama_testing.running import run_inline_async as run_inline_async
    from dagorama_testing.world import World as World
    from dagorama_testing.world import WorldClock as WorldClock
    from dagorama_testing.world import inline as inline

_MODULES = {
    "NodeRun": "records",
    "NothingHappens": "connection",
    "SimulatedWorker": "records",
    "World": "world",
    "WorldClock": "world",
    "inline": "world",
    "run_inline": "running",
    "run_inline_async": "running",
}
__all__ = [
    "NodeRun", "NothingHappens", "SimulatedWorker", "World", "WorldClock", "inline", "run_inline", "run_inline_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return list(__all__)
