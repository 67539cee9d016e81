"""Retry on the page of failures reruns the nodes of one group."""

from __future__ import annotations

import re
from html import unescape

import pytest

from dagorama import DAGDefinition, dagorama, start
from dagorama.client.connection import connection
from dagorama.models.state import State
from tests.dashboard.conftest import Guarded
from tests.dashboard.serving import Dashboard
from tests.support.workers import launch_workers

#: Messages that are in each other, that are short, empty or long, or that have quotes or several lines.
GROUPS = (
    "no area", "no area left", "no", "", 'the "door" is open', "the door is open", "builtins.ValueError",
    "long " * 300, "two\nlines",
)  # fmt: skip


class Alike(DAGDefinition):
    """Fails with messages that are like each other."""

    @dagorama().syncfn
    def entrypoint(self) -> list[None]:
        return [self.fail(message) for message in GROUPS]

    @dagorama().syncfn
    def fail(self, message: str) -> None:
        raise ValueError(message)


def forms_of(pages: Dashboard) -> list[dict[str, str]]:
    """Return the fields of the button Retry of each group."""
    forms = [each.partition("<form")[2].partition("</form>")[0] for each in pages.page("/failures").split("<article")]
    found = [re.findall(r'name="(\w+)" value="([^"]*)"', form) for form in forms[1:]]
    return [{name: unescape(value) for name, value in fields} for fields in found]


def retried_nodes(instance: bytes) -> list[int]:
    """Return the ordinals of the nodes that have been retried."""
    return [info.ordinal for info in connection().list_nodes(instance) if State(info.state) is State.QUEUED]


@pytest.mark.usefixtures("as_admin")
def test_a_group_whose_message_is_part_of_others_is_retried_alone(guarded: Guarded) -> None:
    guarded.pages.sign_in(guarded.tokens["admin"])
    instance, _ = start(Alike())()
    with launch_workers(1, exit_on_completion=True) as workers:
        for worker in workers:
            worker.join()
    retried: list[int] = []
    for form in forms_of(guarded.pages):
        assert "in 1 instance?" in guarded.pages.get("/confirm", params=form).text
        assert " again" in guarded.pages.done(**form), form
        now = retried_nodes(instance.instance_id.bytes)
        assert len(now) == len(retried) + 1, form
        retried = now
    assert len(retried) == len(GROUPS)
