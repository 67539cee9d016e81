"""Tests that the signature of a failure hook's arguments is valid for the hook of its instance alone."""

from contextlib import suppress

import pytest

from dagorama.api.contract import (
    FIRST_HOOK,
    entry_node,
    firing_arguments,
    firing_instance,
    hooked_arguments,
    schedule_digest,
    scheduled_time,
)
from dagorama.errors import TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.values.codec import decode, encode_call
from dagorama.values.keys import SigningKey
from dagorama.values.signing import (
    ARGUMENTS,
    FAILURE,
    HOOK_OF_INSTANCE,
    HOOK_OF_SCHEDULE,
    RESULT,
    SCHEDULE,
    Keyring,
    function_digest,
)
from dagorama_broker.model.hooks import hook_arguments, hook_node
from tests.support.bombs import changed

RING, OTHER = Keyring([SigningKey(b"one".ljust(32))]), Keyring([SigningKey(b"other".ljust(32))])
TELL = function_digest("module:Report.tell", "hash")
INSTANCE = bytes(range(16))
DAILY, MONDAY = schedule_digest("module:Report", "daily"), "2026-11-23T07:00+01:00"
FIRED = firing_instance(DAILY, MONDAY)
NODE = hook_node(INSTANCE, 7)
FAILED = b'{"message": "no"}'


def envelope() -> bytes:
    return encode_call((), {}).envelope


SIGNED = RING.sign_hook(envelope(), HOOK_OF_INSTANCE, INSTANCE, TELL)
OF_DAILY = RING.sign_hook(envelope(), HOOK_OF_SCHEDULE, DAILY, TELL)


@pytest.mark.parametrize("number", [0, 7, 1 << 40])
def test_they_open_at_each_call_of_the_hook(number: int) -> None:
    arguments, node = hook_arguments(SIGNED, FAILED), hook_node(INSTANCE, number)
    assert decode(RING.open_arguments(arguments, INSTANCE, node, TELL)) == ((), {})
    assert hooked_arguments(arguments) == (SIGNED, FAILED)
    assert scheduled_time(arguments) == ""


def test_those_of_a_schedule_open_in_each_of_its_instances() -> None:
    arguments = hook_arguments(firing_arguments(OF_DAILY, MONDAY), FAILED)
    assert decode(RING.open_arguments(arguments, FIRED, hook_node(FIRED, 3), TELL)) == ((), {})
    assert scheduled_time(arguments) == MONDAY


def test_they_do_not_open_elsewhere() -> None:
    arguments = hook_arguments(SIGNED, FAILED)
    of_daily = hook_arguments(firing_arguments(OF_DAILY, MONDAY), FAILED)
    other = bytes(16)
    places = {
        "another instance": (arguments, other, hook_node(other, 7), TELL),
        "the entry point": (arguments, INSTANCE, entry_node(INSTANCE), TELL),
        "the last other node": (arguments, INSTANCE, INSTANCE[:12] + (FIRST_HOOK - 1).to_bytes(4, "big"), TELL),
        "a hook's counter in another origin": (arguments, INSTANCE, hook_node(other, 7), TELL),
        "another function": (arguments, INSTANCE, NODE, function_digest("module:Report.other", "hash")),
        "other code": (arguments, INSTANCE, NODE, function_digest("module:Report.tell", "other")),
        "without a failure": (SIGNED, INSTANCE, NODE, TELL),
        "a schedule's at another time": (
            hook_arguments(firing_arguments(OF_DAILY, "2026-11-24T07:00+01:00"), FAILED), FIRED, hook_node(FIRED, 3),
            TELL,
        ),
        "a schedule's in an instance with its digest": (
            hook_arguments(OF_DAILY, FAILED), DAILY, hook_node(DAILY, 0), TELL,
        ),
        "a schedule's entry point": (firing_arguments(OF_DAILY, MONDAY), FIRED, entry_node(FIRED), TELL),
        "an instance's as a schedule's": (
            hook_arguments(firing_arguments(SIGNED, MONDAY), FAILED), FIRED, hook_node(FIRED, 3), TELL
        ),
        "a schedule's with another digest": (of_daily, INSTANCE, NODE, TELL),
    }  # fmt: skip
    opened = []
    for what, where in places.items():
        with suppress(TamperedValue):
            opened.append((what, RING.open_arguments(*where)))
    assert opened == []


def test_no_other_signature_makes_a_hook() -> None:
    for role in (ARGUMENTS, RESULT, FAILURE, SCHEDULE):
        signed = RING.sign(envelope(), role, INSTANCE, NODE, TELL)
        with pytest.raises(TamperedValue):
            RING.open_arguments(hook_arguments(signed, FAILED), INSTANCE, NODE, TELL)


def test_another_key_and_changed_bytes_are_refused() -> None:
    with pytest.raises(UnverifiedValue):
        OTHER.open_arguments(hook_arguments(SIGNED, FAILED), INSTANCE, NODE, TELL)
    for other in changed(SIGNED):
        with pytest.raises((TamperedValue, UnverifiedValue, ValueNotReadable)):
            RING.open_arguments(hook_arguments(other, FAILED), INSTANCE, NODE, TELL)
