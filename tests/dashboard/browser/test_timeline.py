"""The timeline: when the last attempts ran."""

import pytest
from playwright.sync_api import expect

from tests.dashboard.browser.examples import diamond, fan
from tests.dashboard.browser.graph_page import GraphPage

TRACKS = "view.tracks.map(({label, dense, band}) => [label, dense, band.starts, band.ends])"


def test_each_function_that_has_run_has_a_row(graph: GraphPage) -> None:
    graph.open(diamond(), "timeline")
    bands = {label: (dense, starts, ends) for label, dense, starts, ends in graph.model(TRACKS)}
    assert list(bands) == ["Flow.entrypoint", "Flow.first", "Flow.right", "Flow.left"]
    assert bands["Flow.left"] == (False, [14], [20])
    # A running node has no end yet: its bar is drawn until now, by the clock of the server.
    dense, starts, (end,) = bands["Flow.right"]
    assert (dense, starts) == (False, [12])
    assert end > 29_000


def test_many_attempts_are_a_density_until_the_reader_zooms_in(graph: GraphPage) -> None:
    graph.open(fan(), "timeline")
    assert graph.model("view.tracks.map((track) => track.dense)") == [True]
    for _ in range(6):
        graph.page.get_by_role("button", name="Zoom in").click()
    graph.until("view.tracks.every((track) => !track.dense)")
    graph.page.get_by_role("button", name="All").click()
    graph.until("view.tracks.every((track) => track.dense)")


def test_bars_are_found_by_keys_and_pointer(graph: GraphPage) -> None:
    graph.open(diamond(), "timeline")
    graph.page.locator(".g-canvas-view").focus()
    graph.press("r")
    assert graph.said().startswith("Node 4, Flow.right. State: running")
    graph.press("ArrowDown")
    expect(graph.page.get_by_role("tooltip")).to_contain_text("host-1")
    graph.press("Enter")
    graph.page.wait_for_url(f"{graph.site.url}/instances/made-up/3")


@pytest.mark.slow
def test_the_timeline_asks_for_times_again_when_nodes_have_ended(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "timeline")
    node = made.nodes[3]
    node.ended, node.run = 500, 488_000
    graph.site.tell("nodes", made.set(4, node.state.COMPLETED))
    graph.until("view.bands.every((band) => !band.open.includes(true))")
    assert graph.model("view.bands[2].ends") == [500]


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (0.4, ["0", "0.0001 s", "0.0002 s", "0.0003 s", "0.0004 s"]),
        (900, ["0", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]),
        (20_000, ["0", "5 s", "10 s", "15 s", "20 s"]),
        (200_000, ["0", "1:00 min", "2:00 min", "3:00 min"]),
        (4 * 3_600_000, ["0", "1:00 h", "2:00 h", "3:00 h", "4:00 h"]),
        (4 * 86_400_000, ["0", "1 d", "2 d", "3 d", "4 d"]),
    ],
)
def test_the_axis_has_round_times(graph: GraphPage, span: float, labels: list[str]) -> None:
    graph.open(diamond(), "timeline")
    ticks = f"(() => {{ Object.assign(view.axis, {{from: 0, to: {span}}}); return view.axis.ticks(5); }})()"
    assert [label for _, label in graph.model(ticks)] == labels
