"""The board, the alerts and the reference name metrics that a broker and a worker have."""

import asyncio
import json
import logging
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dagorama.api import broker_pb2 as pb
from tests.support.fetching import url_in
from tests.support.raw import Dag, serving, submit
from tests.support.scrape import Scrape
from tests.support.scripted_broker import ScriptedBroker, worker_process
from tests.support.worker_grants import call

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "deploy" / "grafana" / "dagorama.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
MONITOR = ROOT / "docs" / "how-to" / "monitor.md"
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"
#: Metrics of the library that makes the text.
PROCESS = "process_"
ROW = re.compile(r"^\| `(dagorama_\w+)` \| (\w+) \|(.*?)\|", re.MULTILINE)


async def _broker(folder: Path) -> Scrape:
    """Scrape a broker after nodes have completed, failed and died, so that all metrics have samples."""
    heard: list[str] = []
    handler, log = logging.Handler(logging.INFO), logging.getLogger("dagorama_broker")
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]  # a handler of one use
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with serving(store=f"sqlite:///{folder}/broker.sqlite3", metrics_port=0) as served:
            await submit(served.stub, Dag().submission(b"a", b"b", b"c"))
            worker = await served.worker(slots=3)
            one, two, three = await worker.nodes(3)
            await worker.complete(one)
            await worker.say(deaths=[pb.SlotDeath(slot=2, running=[three.attempt], cause="killed by SIGKILL")])
            await worker.durable(await worker.fail(two))
            (url,) = {url_in(line) for line in heard if line.startswith("HTTP at ")}
            return await asyncio.to_thread(Scrape, url)
    finally:
        log.removeHandler(handler)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    return asyncio.run(_broker(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def worker() -> Scrape:
    """Scrape a worker that has run a node and lost a process."""
    broker = ScriptedBroker()  # type: ignore[abstract]  # it lacks the calls that no worker makes
    try:
        with worker_process(broker, "--metrics-port", "0") as process:
            url, spoken = url_in(process.line()), broker.greeted()
            spoken.grant(call("echo", 1))
            spoken.value()
            spoken.grant(call("kill_itself", signal.SIGKILL))
            spoken.death()
            return Scrape(url)
    finally:
        broker.stop()


def named(texts: list[str]) -> set[str]:
    return {name for text in texts for name in re.findall(rf"\b(?:dagorama|{PROCESS[:-1]})_\w+", text)}


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@pytest.fixture(scope="module")
def board() -> Any:
    return json.loads(BOARD.read_text())


@pytest.fixture(scope="module")
def rules() -> list[Any]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_each_metric_of_the_board_exists(board: Any, broker: Scrape, worker: Scrape) -> None:
    found = named(
        [*expressions(board["panels"]), *(each.get("definition", "") for each in board["templating"]["list"])]
    )
    assert len(found) > 20
    assert found - broker.names - worker.names == set()


def test_the_panels_of_the_board_are_whole_and_do_not_overlap(board: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len({*ids}) == len(ids)


def test_each_metric_of_the_alerts_exists(rules: list[Any], broker: Scrape) -> None:
    found = named([rule["expr"] for rule in rules])
    assert len(found) >= 6
    assert found - broker.names == set()


def test_each_alert_has_a_severity_and_says_what_to_do(rules: list[Any]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_the_page_lists_exactly_the_alerts_that_exist(rules: list[Any]) -> None:
    listed = re.findall(r"^\| `(Dagorama\w+)` \|", MONITOR.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(rule["alert"] for rule in rules)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool of Prometheus is not installed")
def test_promtool_accepts_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True)


@pytest.mark.parametrize("of", ["Broker", "Worker"])
def test_the_reference_lists_exactly_the_metrics_that_exist(of: str, broker: Scrape, worker: Scrape) -> None:
    page = REFERENCE.read_text()
    section = page[page.index(f"## {of}") :].partition("\n## ")[0]
    listed = {
        name.removesuffix("_total"): (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(section)
    }
    scrape = broker if of == "Broker" else worker
    found = {
        name: (family.type, scrape.labels[name])
        for name, family in scrape.families.items()
        if not name.startswith(PROCESS)
    }
    assert listed == found
