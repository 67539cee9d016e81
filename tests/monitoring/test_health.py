"""A process is live while its event loop turns, and ready while nothing prevents it from working."""

import asyncio
from time import monotonic

import pytest

from dagorama_monitoring import health
from dagorama_monitoring.health import Health
from dagorama_monitoring.listener import Request


async def answer(checked: Health, path: str) -> tuple[int, str]:
    answer = await checked.pages[path](Request(path, {}))
    return answer.status.value, answer.body.decode()


async def test_an_obstacle_is_told_and_does_not_concern_being_alive() -> None:
    obstacle = "it is tired"
    checked = Health(lambda: obstacle)
    assert await answer(checked, "/readyz") == (503, "not ready: it is tired\n")
    assert await answer(checked, "/livez") == (200, "live\n")
    obstacle = ""
    assert await answer(checked, "/readyz") == (200, "ready\n")


async def test_a_loop_that_does_not_turn_is_neither_live_nor_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Health(lambda: "")
    watching = asyncio.create_task(checked.watch_loop())
    await asyncio.sleep(0)
    assert await answer(checked, "/livez") == (200, "live\n")
    watching.cancel()  # as if the loop had stopped
    later = monotonic() + health.STUCK + 1
    monkeypatch.setattr(health, "monotonic", lambda: later)
    sentence = f"the event loop has not turned for {health.STUCK + 1:.0f} seconds\n"
    assert await answer(checked, "/livez") == (503, f"not live: {sentence}")
    assert await answer(checked, "/readyz") == (503, f"not ready: {sentence}")
