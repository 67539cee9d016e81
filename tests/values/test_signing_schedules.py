"""The signature of a schedule's arguments: good for each time of that schedule, as its entry point, and for no more."""

from contextlib import suppress

import pytest

from dagorama.api.contract import entry_node, firing_instance, schedule_digest
from dagorama.errors import TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.values.codec import decode, encode_call
from dagorama.values.keys import SigningKey
from dagorama.values.signing import ARGUMENTS, FAILURE, RESULT, SCHEDULE, Keyring, function_digest
from tests.support.bombs import changed

RING, OTHER = Keyring([SigningKey(b"s" * 32)]), Keyring([SigningKey(b"t" * 32)])
REPORT = function_digest("module:Report.entrypoint", "hash")
DAILY = schedule_digest("module:Report", "daily")
MONDAY, TUESDAY = "2026-11-23T07:00+01:00", "2026-11-24T07:00+01:00"
ENVELOPE = encode_call(("EU",), {}).envelope
SIGNED = RING.sign_schedule(ENVELOPE, DAILY, REPORT)


def place(time: str = MONDAY, schedule: bytes = DAILY) -> tuple[bytes, bytes]:
    instance = firing_instance(schedule, time)
    return instance, entry_node(instance)


@pytest.mark.parametrize("time", [MONDAY, TUESDAY])
def test_they_open_at_each_time_of_the_schedule(time: str) -> None:
    assert decode(RING.open_scheduled(SIGNED, *place(time), REPORT, time)) == (("EU",), {})


def test_they_do_not_open_elsewhere() -> None:
    instance, node = place()
    others = {
        "the instance of another time": (*place(TUESDAY), REPORT, MONDAY),
        "the instance of another schedule": (*place(schedule=schedule_digest("module:Report", "dail")), REPORT, MONDAY),
        "an instance of a client": (bytes(16), bytes(16), REPORT, MONDAY),
        "another node of the instance": (instance, node[:12] + b"\0\0\0\1", REPORT, MONDAY),
        "a node of another origin": (instance, bytes(16), REPORT, MONDAY),
        "another function": (instance, node, function_digest("module:Report.other", "hash"), MONDAY),
        "other code": (instance, node, function_digest("module:Report.entrypoint", "other"), MONDAY),
        "no time": (instance, node, REPORT, ""),
    }
    opened = []
    for what, where in others.items():
        with suppress(TamperedValue):
            opened.append((what, RING.open_scheduled(SIGNED, *where)))
    assert opened == []


def test_they_are_no_other_arguments_no_result_and_no_failure() -> None:
    instance, node = place()
    with pytest.raises(TamperedValue):
        RING.open_arguments(SIGNED, DAILY, node, REPORT)
    for role in (RESULT, FAILURE, SCHEDULE):
        with pytest.raises(TamperedValue):
            RING.open(SIGNED, role, node)
    usual = RING.sign(ENVELOPE, ARGUMENTS, instance, node, REPORT)
    with pytest.raises(TamperedValue):
        RING.open_scheduled(usual, instance, node, REPORT, MONDAY)


def test_another_key_and_changed_bytes_are_refused() -> None:
    with pytest.raises(UnverifiedValue):
        OTHER.open_scheduled(SIGNED, *place(), REPORT, MONDAY)
    for other in changed(SIGNED):
        with pytest.raises((TamperedValue, UnverifiedValue, ValueNotReadable)):
            RING.open_scheduled(other, *place(), REPORT, MONDAY)


def test_schedules_of_different_names_and_definitions_are_different() -> None:
    digests = {schedule_digest(definition, name) for definition, name in (("a", "bc"), ("ab", "c"), ("a", "b"))}
    times = [firing_instance(digest, time) for digest in digests for time in (MONDAY, TUESDAY)]
    assert len(set(times)) == 6
    assert all(len(id) == 16 for id in times)
