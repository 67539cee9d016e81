"""Actions of people from the pages: confirmed with a count, done once, and told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from uuid import UUID

import pytest

from dagorama import DAGDefinition, DAGInstance, dagorama, resolve, start
from dagorama.api.broker_pb2 import NodeInfo
from dagorama.client.connection import connection
from dagorama.models.state import State
from tests.dashboard.serving import Dashboard, dashboard
from tests.dashboard.shown_work import DEPLOYED_BEFORE, DEPLOYED_NOW
from tests.support.brokers import launch_broker
from tests.support.worker_command import WAIT, await_that, old_of_two, worker
from tests.support.workers import launch_workers


class Simple(DAGDefinition):
    """Fails as long as its file is not there."""

    @dagorama().syncfn
    def entrypoint(self, path: str) -> str:
        with open(path) as file:
            return file.read()


class Pair(DAGDefinition):
    """Two nodes fail, each with an error of its own."""

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.both(self.one(number), self.other(number))

    @dagorama().syncfn
    def one(self, number: int) -> int:
        raise ValueError(f'no "answer" to question {number}')

    @dagorama().syncfn
    def other(self, number: int) -> int:
        raise KeyError(number)

    @dagorama().syncfn
    def both(self, one: int, other: int) -> int:
        return one + other


@pytest.fixture(scope="module")
def pages() -> Iterator[Dashboard]:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port, new_code=True) as pages:
        yield pages
    connection().close_stream()


def made(path: str = "/nothing/here", **labels: str) -> str:
    instance: DAGInstance
    instance, _ = start(Simple(), labels=labels)(path)
    return f"{instance.instance_id}"


def run() -> None:
    with launch_workers(1, exit_on_completion=True) as workers:
        for worker in workers:
            worker.join()


def nodes_of(id: str) -> Sequence[NodeInfo]:
    return connection().list_nodes(UUID(id).bytes)


def state_of(id: str) -> State:
    return State(nodes_of(id)[0].state)


def test_an_instance_is_cancelled_after_a_question_that_names_it(pages: Dashboard) -> None:
    id = made()
    question = pages.page(f"/confirm?action=cancel&id={id}&next=/instances/{id}")
    assert f"Cancel Simple {id[:8]}, 1 of 1 nodes unfinished?" in question
    assert state_of(id) is State.QUEUED
    assert "1 node of 1 instance cancelled" in pages.done(action="cancel", id=id)
    assert state_of(id) is State.CANCELLED


def test_a_notice_is_shown_once(pages: Dashboard) -> None:
    id = made()
    assert "cancelled" in pages.done(action="cancel", id=id)
    assert 'class="notice' not in pages.page("/")


def test_one_node_is_cancelled_and_retried_from_its_page(pages: Dashboard) -> None:
    id = made()
    run()
    node = pages.page(f"/instances/{id}/1").split('<code class="id">')[1][:36]
    assert "1 node runs or waits again" in pages.done(action="retry", id=id, node=node)
    assert state_of(id) is State.QUEUED
    assert "1 node cancelled" in pages.done(action="cancel", id=id, node=node)
    assert state_of(id) is State.CANCELLED


def test_several_instances_are_cancelled_together(pages: Dashboard) -> None:
    ids = [made() for _ in range(12)]
    assert "Cancel 12 instances?" in pages.page("/confirm?action=cancel&" + "&".join(f"id={id}" for id in ids))
    assert "12 nodes of 12 instances cancelled" in pages.done(action="cancel", id=ids)
    row = pages.page("/instances").partition(f'id="i{ids[0]}"')[2].partition("</tr>")[0]
    assert "cancelled</span>" in row
    assert "failed</span>" not in row


@pytest.mark.parametrize("action", ["cancel", "retry", "delete"])
def test_all_that_match_are_changed_and_no_others(pages: Dashboard, action: str) -> None:
    label = {"round": action}
    ids, other = [made(**label) for _ in range(3)], made(round="other")
    if action != "cancel":
        run()
    query = {"action": action, "all": "1", "q": f"label:round={action}"}
    question = pages.get("/confirm", params=query).text
    assert "3 instances that match" in question
    assert "3" in pages.done(**query)
    left = {bytes(info.instance).hex() for info in connection().list_instances(labels=label).instances}
    assert len(left) == (0 if action == "delete" else 3)
    expected = {"cancel": State.CANCELLED, "retry": State.QUEUED}
    for id in ids if action != "delete" else ():
        assert state_of(id) is expected[action]
    assert state_of(other) is (State.QUEUED if action == "cancel" else State.FAILED)
    pages.done(action="cancel", all="1", q="")


def test_an_instance_that_cannot_be_retried_does_not_hold_up_the_others(pages: Dashboard) -> None:
    failed = made(mixed="yes")
    run()
    for _ in range(9):  # more than are changed at once, and listed before the failed one
        pages.done(action="cancel", id=made(mixed="yes"))
    told = pages.done(action="retry", all="1", q="label:mixed=yes")
    assert "1 of 10 instances were done. The first problem: nothing in it failed" in told
    assert state_of(failed) is State.QUEUED


def test_only_what_the_action_can_change_is_counted(pages: Dashboard) -> None:
    made(kind="waiting")
    question = pages.get("/confirm", params={"action": "delete", "all": "1", "q": "label:kind=waiting"}).text
    assert "None of the instances that match" in question
    assert "<button" not in question.partition('action="/do"')[2].partition("</form>")[0]


def test_a_failed_instance_runs_again_with_the_deployed_code(pages: Dashboard) -> None:
    id = made()
    run()
    assert "again" in pages.done(action="retry-new-code", id=id)
    assert state_of(id) is State.QUEUED


def test_without_new_code_the_dashboard_signs_nothing(pages: Dashboard) -> None:
    broker = connection()
    with dashboard(broker.settings.host, broker.settings.port) as plain:
        id = made()
        run()
        assert "retry-new-code" not in plain.page(f"/instances/{id}")
        for fields in ({"action": "retry-new-code", "id": id}, {"action": "rebind", "name": "m:C.f"}):
            assert "was not started with --new-code" in plain.done(**fields)


def test_the_nodes_of_a_group_of_failures_run_again_and_no_others(pages: Dashboard) -> None:
    ids = [f"{start(Pair())(number)[0].instance_id}" for number in (1, 2)]
    run()
    (group,) = [each for each in pages.page("/failures").split("<article") if "Pair.one" in each]
    assert '<span class="count">2' in group
    form = group.partition("<form")[2].partition("</form>")[0]
    fields = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
    assert """'ValueError: no … to question …' in 2 instances""" in unescape(pages.get("/confirm", params=fields).text)
    assert "again" in pages.done(**fields)
    for id in ids:
        states = {node.function.name.rpartition(".")[2]: State(node.state) for node in nodes_of(id)}
        assert (states["one"], states["other"]) == (State.QUEUED, State.FAILED)
    assert "no instance was chosen" in pages.done(**fields), "nothing of the group has failed any more"


def test_nodes_that_no_workers_code_fits_run_with_the_deployed_code(
    pages: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_of_two(tmp_path, monkeypatch, "deployed_twice", DEPLOYED_BEFORE, DEPLOYED_NOW)
    instance, promise = old.Deployed()()
    with worker(path=tmp_path / "new"):
        await_that(lambda: "Run with the deployed code" in pages.page("/queues"))
        function = "deployed_twice:Deployed.entrypoint"
        question = pages.page(f"/confirm?action=rebind&name={function}")
        assert f"Run with the deployed code the nodes of {function}?" in question
        assert "1 node runs with the deployed code" in pages.done(action="rebind", name=function)
        assert resolve(instance, promise, timeout=WAIT) == 2


def test_an_ended_instance_is_deleted_and_the_list_is_shown(pages: Dashboard) -> None:
    id = made()
    run()
    response = pages.post("/do", {"action": "delete", "id": id, "next": f"/instances/{id}"})
    assert response.headers["location"] == "/instances"
    assert pages.get(f"/instances/{id}").status_code == 404


def test_a_queue_is_paused_and_resumed(pages: Dashboard) -> None:
    made()
    name = f"{__name__}:Simple.entrypoint"
    assert "is paused" in pages.done(action="pause", name=name)
    page = pages.page("/queues")
    assert "Resume" in page
    assert "paused" in page
    assert "already" in pages.done(action="pause", name=name)
    assert "runs" in pages.done(action="resume", name=name)


def test_a_worker_is_drained(pages: Dashboard) -> None:
    with launch_workers(1) as workers:
        page = pages.page("/workers")
        assert "1 connected" in page
        id = page.split('<article class="card" id="w')[1][:32]
        name = page.partition('<span class="strong">')[2].partition("<")[0]
        question = pages.page(f"/confirm?action=drain&name={id}&label=another")
        assert f"the worker {name}" in question, "the broker is asked for the name, not the address"
        assert "leaves" in pages.done(action="drain", name=id)
        for worker in workers:
            worker.join()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "explode"},
        {"action": "cancel"},
        {"action": "cancel", "id": "x"},
        {"action": "cancel", "id": "00000000-0000-0000-0000-000000000000"},
        {"action": "retry", "node": "00000000-0000-0000-0000-000000000000"},
        {"action": "drain", "name": "zz"},
        {"action": "drain", "name": "00" * 16},
        {"action": "pause", "name": ""},
        {"action": "cancel", "all": "1", "q": "label:x"},
        {"action": "cancel", "all": "1", "q": "deadbeef"},
    ],
)
def test_a_wrong_request_changes_nothing_and_says_why(pages: Dashboard, fields: dict[str, str]) -> None:
    response = pages.post("/do", {"next": "/actions", **fields})
    if response.status_code == 303:
        assert 'class="notice bad"' in pages.page("/instances")
    else:
        assert response.status_code == 400
        assert 'role="alert"' in response.text


def test_what_people_did_is_in_the_history(pages: Dashboard) -> None:
    id = made()
    pages.done(action="cancel", id=id)
    page = pages.page("/actions")
    assert "cancel" in page
    assert id[:8] in page
