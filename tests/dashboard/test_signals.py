"""A person sends a signal with a form on the page of the node that waits for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from dagorama import DAGDefinition, DAGInstance, DAGPromise, resolve, wait_for
from dagorama.values.typed_json import json_type
from dagorama_dashboard.pages.signals import Field, fields_of
from tests.dashboard.conftest import Guarded
from tests.dashboard.serving import Dashboard, problem


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Decision:
    yes: bool
    size: Size
    note: str
    count: int = 1
    weight: float = 0.5
    notify: bool = True
    words: str = "none"
    spare: Size = Size.SMALL


class Waiting(DAGDefinition):
    def entrypoint(self) -> list[Any]:
        return [wait_for("approval", Decision), wait_for("words", list[str])]


@pytest.fixture
def waiting(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> tuple[DAGInstance, list[DAGPromise[Any]]]:
    monkeypatch.setitem(os.environ, "DAGORAMA_AUTH_TOKEN", guarded.tokens["admin"])
    found: Any = Waiting()()
    return cast("tuple[DAGInstance, list[DAGPromise[Any]]]", found)


def sent(pages: Dashboard, **fields: str | list[str]) -> str:
    """Post a form as its page does, and return the page after it."""
    response = pages.post("/signal", fields)
    assert response.status_code == 303, problem(response)
    return pages.page(response.headers["location"])


def performed(pages: Dashboard, **fields: str | list[str]) -> str:
    """Perform an action as its confirmation does, and return the page after it."""
    response = pages.post("/do", fields)
    assert response.status_code == 303, problem(response)
    return pages.page(response.headers["location"])


def fields_in(page: str) -> list[str]:
    """Return the hidden inputs of a form that name its fields."""
    return [part.split('"', 1)[0] for part in page.split('name="inputs" value="')[1:]]


def test_the_form_has_an_input_for_each_field_and_the_node_gets_the_value(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["anna"])
    address = f"/instances/{instance.instance_id}/1"
    page = guarded.pages.page(address)
    assert "it waits for the signal" in page
    assert "Send the signal approval" in page
    assert 'type="checkbox"' in page
    assert page.count('<option value="">(left out)</option>') == 2
    inputs = fields_in(page)
    assert inputs == [
        "checkbox field.yes", "select field.size", "text! field.note", "number field.count", "number field.weight",
        "select field.notify", "text field.words", "select field.spare",
    ]  # fmt: skip
    form: dict[str, str | list[str]] = {
        "id": f"{instance.instance_id}", "signal": "approval", "next": address, "key": "k", "inputs": inputs,
        "field.yes": "1", "field.size": '"large"', "field.note": "", "field.count": "3", "field.weight": "",
        "field.notify": "", "field.words": "", "field.spare": "",
    }  # fmt: skip
    told = sent(guarded.pages, **form)
    assert "The signal approval was given to a node" in told
    assert "sent by anna" in told
    assert "Send the signal" not in told, "it has ended"
    assert resolve(instance, promises[0]) == Decision(True, Size.LARGE, "", 3)


def test_a_node_that_has_its_signal_is_let_wait_again(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["admin"])
    address = f"/instances/{instance.instance_id}/2"
    assert "Wait again" not in guarded.pages.page(address)
    form = {"id": f"{instance.instance_id}", "signal": "words", "next": address}
    page = sent(guarded.pages, json='["wrong"]', **form)
    asked = {"action": "wait-again", "id": form["id"], "node": f"{promises[1].identifier}", "next": address}
    assert '<input type="hidden" name="action" value="wait-again">' in page
    assert "All nodes that depend on it run again" in guarded.pages.page(f"/confirm?{urlencode(asked)}")
    told = performed(guarded.pages, **asked)
    assert "The node waits for another signal" in told
    assert "Send the signal words" in told
    assert "Nothing to retry: the node has received no signal" in performed(guarded.pages, **asked)
    sent(guarded.pages, json='["right"]', **form)
    assert resolve(instance, promises[1]) == ["right"]


def test_a_field_with_a_default_can_be_given_another_value(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["anna"])
    address = f"/instances/{instance.instance_id}/1"
    form: dict[str, str | list[str]] = {
        "id": f"{instance.instance_id}", "signal": "approval", "next": address,
        "inputs": fields_in(guarded.pages.page(address)), "field.size": '"small"', "field.note": "n",
        "field.notify": "false", "field.words": "some", "field.spare": '"large"',
    }  # fmt: skip
    assert "was given to a node" in sent(guarded.pages, **form)
    given = Decision(False, Size.SMALL, "n", notify=False, words="some", spare=Size.LARGE)
    assert resolve(instance, promises[0]) == given


def test_the_page_of_the_instance_lists_what_it_waits_for_and_leads_to_the_forms(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, _ = waiting
    address = f"/instances/{instance.instance_id}"
    guarded.pages.sign_in(guarded.tokens["reader"])
    page = guarded.pages.page(address)
    assert "Waits for signals" in page
    assert f'<a href="{address}/1">1</a>' in page
    assert "#signal" not in page, "a reader may not send"
    guarded.pages.sign_in(guarded.tokens["anna"])
    page = guarded.pages.page(address)
    assert [f'href="{address}/{number}#signal"' in page for number in (1, 2)] == [True, True]
    assert '<section id="signal"' in guarded.pages.page(f"{address}/1")
    sent(guarded.pages, id=f"{instance.instance_id}", signal="words", next=address, json="[]")
    page = guarded.pages.page(address)
    assert [f"<code>{name}</code>" in page for name in ("approval", "words")] == [True, False]


def test_a_type_without_simple_fields_is_written_as_json(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["anna"])
    address = f"/instances/{instance.instance_id}/2"
    assert "<textarea" in guarded.pages.page(address)
    form = {"id": f"{instance.instance_id}", "signal": "words", "next": address}
    assert "the value is not JSON" in sent(guarded.pages, **form, json="words")
    assert "an object has a key twice" in sent(guarded.pages, **form, json='[{"a": 1, "a": 2}]')
    assert "a JSON array is expected" in sent(guarded.pages, **form, json='"words"')
    assert "was given to a node" in sent(guarded.pages, **form, json='["a", "b"]')
    assert resolve(instance, promises[1]) == ["a", "b"]


def test_a_reader_has_no_form_and_is_refused(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["reader"])
    address = f"/instances/{instance.instance_id}/1"
    assert "Send the signal" not in guarded.pages.page(address)
    refused = sent(guarded.pages, id=f"{instance.instance_id}", signal="approval", next=address, json="1")
    assert "has the role reader, which may not call dagorama.v1.Broker/SendSignal" in refused
    assert resolve(instance, promises[0]) is None


@pytest.mark.parametrize(
    ("annotation", "fields"),
    [
        (bool, [Field("value", "value", "checkbox")]),
        (int, [Field("value", "value", "number", "1")]),
        (str, [Field("value", "value", "text")]),
        (Size, [Field("value", "value", "select", options=('"small"', '"large"'))]),
        (int | None, []),
        (list[int], []),
        (dict[str, int], []),
    ],
)
def test_the_inputs_follow_from_the_schema(annotation: Any, fields: list[Field]) -> None:
    assert fields_of(json.dumps(json_type(annotation).schema()).encode()) == fields
    assert fields_of(b"") == []


def test_each_page_that_is_loaded_sends_a_signal_of_its_own(
    guarded: Guarded, waiting: tuple[DAGInstance, list[DAGPromise[Any]]]
) -> None:
    instance, promises = waiting
    guarded.pages.sign_in(guarded.tokens["admin"])
    address = f"/instances/{instance.instance_id}/2"

    def form(value: str) -> dict[str, str | list[str]]:
        key = guarded.pages.page(address).split('name="key" value="')[1].partition('"')[0]
        named = {"id": f"{instance.instance_id}", "signal": "words", "next": address}
        return {**named, "key": key, "json": value}

    first = form('["wrong"]')
    assert "was given to a node" in sent(guarded.pages, **first)
    assert "was sent before" in sent(guarded.pages, **first)
    performed(guarded.pages, action="wait-again", id=f"{instance.instance_id}", node=f"{promises[1].identifier}")
    assert "was sent before" in sent(guarded.pages, **first)
    assert "was given to a node" in sent(guarded.pages, **form('["right"]'))
    assert resolve(instance, promises[1]) == ["right"]
