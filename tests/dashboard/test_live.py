"""Open pages follow what happens, say what is wrong, and end with the dashboard."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest

from dagorama import DAGDefinition, dagorama, start
from dagorama.client.connection import connection
from dagorama.models.state import State
from dagorama_broker.launch import LaunchedBroker
from dagorama_dashboard.web.rendering import sent
from tests.dashboard.conftest import Guarded, Seen
from tests.dashboard.serving import Dashboard, dashboard
from tests.dashboard.shown_work import Shapes
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

SECONDS = 60.0


class Fan(DAGDefinition):
    """Makes nodes, and joins nothing."""

    @dagorama().syncfn
    def entrypoint(self, width: int) -> list[int]:
        return [self.work(number) for number in range(width)]

    @dagorama().syncfn
    def work(self, number: int) -> int:
        print("working", number)
        return number


class Message(NamedTuple):
    event: str
    data: str
    id: str


@contextmanager
def stream(pages: Dashboard, path: str, **headers: str) -> Iterator[Iterator[Message]]:
    """Open a stream of server-sent messages."""
    with pages.client.stream("GET", path, headers=headers, timeout=SECONDS) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield messages(response)


def messages(response: httpx.Response) -> Iterator[Message]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        elif fields:
            yield Message(fields.get("event", ""), fields.get("data", ""), fields.get("id", ""))
            fields = {}


@pytest.fixture
def board() -> Iterator[tuple[Dashboard, LaunchedBroker]]:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port) as pages:
        yield pages, broker
    connection().close_stream()


def run() -> None:
    with launch_workers(1, exit_on_completion=True) as workers:
        for worker in workers:
            worker.join()


def test_a_list_that_is_open_shows_an_instance_that_was_started_since(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = board
    with stream(pages, "/live/instances?q=id:late") as updates:
        assert "No instance matches." in next(updates).data
        instance, _ = start(Fan(), id="late")(3)
        assert any(f"{instance.instance_id}" in update.data for update in updates)


def test_the_update_of_a_page_is_the_part_of_it_that_changes(seen: Seen) -> None:
    whole = seen.pages.page(f"/instances/{seen.failed}?view=table")
    with stream(seen.pages, f"/live/instances/{seen.failed}?view=table") as updates:
        update = next(updates).data
    assert "<html" not in update
    assert update.count('id="n') == whole.count('id="n')


def test_a_paused_page_opens_no_stream(seen: Seen) -> None:
    assert "hx-sse:connect" in seen.pages.page("/instances")
    paused = seen.pages.get("/instances", headers={"Cookie": "dagorama-live=paused"}).text
    assert "hx-sse:connect" not in paused
    assert 'data-live="paused"' in paused


@pytest.mark.parametrize("cookie", ["dagorama-live=%3Cb%3E", "dagorama-theme=x%22onload", "dagorama-live="])
def test_a_cookie_that_is_not_ours_is_ignored(seen: Seen, cookie: str) -> None:
    page = seen.pages.get("/instances", headers={"Cookie": cookie}).text
    assert 'data-live="live"' in page
    assert "data-theme" not in page


def test_the_drawing_is_told_each_state_until_the_instance_has_ended(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = board
    instance, _ = start(Fan())(50)
    base = f"/instances/{instance.instance_id}/graph"
    states: dict[int, int] = {}
    with stream(pages, f"{base}/live") as updates:
        first = next(updates)
        assert first.event in ("nodes", "progress")
        known = pages.get(f"{base}/map").json()["count"]
        run()
        for update in updates:
            if update.event == "ended":
                break
            data = json.loads(update.data)
            if update.event == "nodes":
                states.update(zip(data["o"], b64decode(data["s"]), strict=True))
                if data["nodes"] > known:
                    more = pages.get(f"{base}/map?after={known}").json()
                    states.update(enumerate(b64decode(more["state"]), known + 1))
                    known += more["count"]
    final = pages.get(f"{base}/map").json()
    assert final["count"] == known == 51
    assert set(b64decode(final["state"])) == {State.COMPLETED}
    assert set(states.values()) == {State.COMPLETED}
    assert len(states) == 51


def test_the_progress_of_functions_is_told(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = board
    instance, _ = start(Fan())(5)
    with stream(pages, f"/instances/{instance.instance_id}/graph/live") as updates:
        run()
        last = [json.loads(update.data) for update in updates if update.event == "progress"][-1]
    assert [each["label"] for each in last["functions"]] == ["Fan.entrypoint", "Fan.work"]
    assert last["functions"][1]["nodes"][State.COMPLETED] == 5
    assert last["ended"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_text_of_others_adds_no_fields_to_a_message(end: str) -> None:
    lines = sent(f"text{end}event: over{end}{end}data: more").split("\n")
    assert lines == ["data: text", "data: event: over", "data: ", "data: data: more", "", ""]


def test_an_instance_that_has_ended_is_told_at_once(seen: Seen) -> None:
    with stream(seen.pages, f"/instances/{seen.completed}/graph/live") as updates:
        assert [update.event for update in updates][-1] == "ended"


def test_the_drawing_of_a_retried_instance_does_not_show_its_failure(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = board
    instance, _ = start(Shapes())(2, 0)
    base, id = f"/instances/{instance.instance_id}/graph", f"{instance.instance_id}"

    def states() -> set[int]:
        return {*b64decode(pages.get(f"{base}/map").json()["state"])}

    run()
    assert State.FAILED in states()
    pages.done(action="retry", id=id)
    assert State.FAILED not in states()
    with stream(pages, f"{base}/live") as updates:
        next(updates)
        pages.done(action="cancel", id=id)
        assert "ended" in [update.event for update in updates]
    assert State.CANCELLED in states()


def test_the_log_of_a_node_goes_on_where_it_was_broken_off(seen: Seen) -> None:
    page = f"/instances/{seen.failed}/3/log/live"
    with stream(seen.pages, page) as parts:
        first = list(parts)
    assert "measuring" in first[0].data
    assert first[-1].event == "over"
    with stream(seen.pages, page, **{"Last-Event-ID": first[0].id}) as parts:
        assert not any("measuring" in part.data for part in parts)


def test_a_page_says_that_the_broker_is_gone_and_goes_on_with_it(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, broker = board
    with stream(pages, "/live/workers") as updates:
        assert "No worker is connected" in next(updates).data
        broker.kill()
        assert any("No broker answers" in update.data for update in updates)
        broker.start()
        assert any("No worker is connected" in update.data for update in updates)


def test_a_stream_ends_when_its_token_is_taken_away(guarded: Guarded) -> None:
    guarded.pages.sign_in(guarded.tokens["reader"])
    with stream(guarded.pages, "/live/workers") as updates:
        next(updates)
        guarded.tokens.take_away("reader")
        assert any("Sign in again" in update.data for update in updates)


def test_streams_end_when_the_dashboard_stops(board: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = board
    with stream(pages, "/live/workers") as updates:
        next(updates)
        pages.stop()
        list(updates)  # the stream ends, without an error
