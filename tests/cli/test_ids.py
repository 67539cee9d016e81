"""Nodes and instances as people write and read them."""

from __future__ import annotations

from uuid import UUID

import click
import pytest

from dagorama.cli.base import id_digits, node_name, node_names, node_reference, target
from dagorama.client.connection import Connection
from dagorama.settings import Settings
from tests.support.recording_broker import RecordingBroker

WHOLE = "3f9a1c02-0000-4000-8000-00000000abcd"
DIGITS = WHOLE.replace("-", "")


@pytest.mark.parametrize(("written", "read"), [
    ("3F9A", "3f9a"), (WHOLE, DIGITS), ("/17", "/17"), ("3f9a/17", "3f9a/17"), (f"{WHOLE}/1", f"{DIGITS}/1"),
    (f"3f9a/{WHOLE.upper()}", f"3f9a/{DIGITS}"), ("3f9a/1234", "3f9a/1234"),
])  # fmt: skip
def test_a_node_is_an_id_or_an_ordinal_after_a_slash(written: str, read: str) -> None:
    assert node_reference(written) == read


@pytest.mark.parametrize(("written", "said"), [
    ("17", "write /17"), ("xyz", "is not an ID"), ("3f9a/0", "its ordinal, from 1"), ("3f9a/", "its ordinal, from 1"),
    ("3f9a/-1", "its ordinal"), ("3f/17", "is not an ID"), ("3f9a/1/2", "its ordinal"), ("3f9a/abcd", "complete ID"),
    ("", "is not an ID"),
])  # fmt: skip
def test_what_is_no_node_is_refused_with_a_hint(written: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        node_reference(written)


def test_a_node_that_stands_alone_needs_its_instance() -> None:
    assert target("3f9a/17") == "3f9a/17"
    with pytest.raises(click.BadParameter, match="needs the instance before the slash"):
        target("/17")


def test_where_an_instance_is_expected_a_node_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="names a node, and an instance is expected"):
        id_digits("3f9a/17")


def test_a_name_is_the_beginning_of_the_instance_and_the_ordinal() -> None:
    instance, id = bytes.fromhex("3f9a1c02" + "0" * 24), UUID(int=7)
    assert node_name(instance, 17, id.bytes) == "3f9a1c02/17"
    assert node_name(instance, 0, id.bytes) == str(id)


def test_a_broker_that_does_not_know_names_leaves_the_ids(broker: RecordingBroker) -> None:
    id = UUID(int=7)
    assert node_names(Connection(Settings.from_env()), [id.bytes, b""]) == {id.bytes: str(id)}
