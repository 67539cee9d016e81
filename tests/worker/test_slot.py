"""A supervisor's book of one slot, with a real socket and shared memory, and a test in the place of the child."""

import socket
from collections.abc import Iterator

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.worker.frames import CUT_OFF, FrameReader, Kind, Outcome, pack_outcome
from dagorama.worker.shared_memory import RING, SharedMemory, SlotMemory
from dagorama.worker.supervisor.fork_server import Ended, cause_of
from dagorama.worker.supervisor.slot import Slot
from tests.support.worker_grants import call, grant_of


@pytest.fixture
def memory() -> SlotMemory:
    return SharedMemory(1).slots[0]


@pytest.fixture
def slot(memory: SlotMemory) -> Slot:
    return Slot(0, memory)


@pytest.fixture
def child(slot: Slot) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    slot.start(4711, ours)
    with theirs:
        yield theirs
    slot.close()


def grant(*attempts: int, body: bytes = b"body", last: bool = True) -> pb.Grant:
    return pb.Grant(slot=0, node=[attempt + 100 for attempt in attempts], attempt=attempts, body=body, last=last)


def read_frames(child: socket.socket) -> list[tuple[Kind, bytes]]:
    return FrameReader().feed(child.recv(1 << 20))


def test_bodies_go_to_the_child_as_they_came(slot: Slot, child: socket.socket) -> None:
    assert slot.give(grant(body=b"one", last=False), set()) is None
    assert slot.give(grant(1, body=b"two"), set()) is None
    assert not slot.write()
    assert read_frames(child) == [(Kind.PIECE, b"one"), (Kind.GRANT, b"two")]


def test_what_the_child_cannot_take_yet_is_kept_and_goes_later(slot: Slot, child: socket.socket) -> None:
    body = bytes(8 << 20)
    slot.give(grant(1, body=body), set())
    assert slot.write()
    reader, frames = FrameReader(), list[tuple[Kind, bytes]]()
    while not frames:
        frames = reader.feed(child.recv(1 << 20))
        slot.write()
    assert frames == [(Kind.GRANT, body)]


def test_nodes_wait_for_their_large_values_and_those_behind_them_wait_too(slot: Slot, child: socket.socket) -> None:
    slot.give(grant(1, body=b"needs"), {b"a", b"b"})
    slot.give(grant(2, body=b"behind"), set())
    slot.arrived(b"a")
    assert not slot.write()
    child.setblocking(False)
    with pytest.raises(BlockingIOError):
        child.recv(1)
    slot.arrived(b"b")
    slot.write()
    assert [body for _, body in read_frames(child)] == [b"needs", b"behind"]


def test_large_values_stay_until_all_nodes_up_to_theirs_are_answered_for(slot: Slot) -> None:
    first, second = grant(1, 2), grant(3)
    first.large.append(b"a")
    second.large.append(b"b")
    slot.give(first, set())
    slot.give(second, set())
    slot.answered([1, 3])
    assert slot.unpinned() == []
    slot.answered([2])
    assert slot.unpinned() == [b"a", b"b"]


def test_a_child_that_is_replaced_between_the_pieces_of_a_grant_does_not_get_the_rest(slot: Slot) -> None:
    slot.give(grant(body=b"one", last=False), set())
    slot.reset()
    assert slot.give(grant(body=b"two", last=False), set()) is None
    returned = slot.give(grant(1, 2, body=b"three"), set())
    assert returned is not None
    assert (list(returned.node), list(returned.attempt), returned.reason) == ([101, 102], [1, 2], pb.UNSTARTED)
    assert slot.give(grant(3), set()) is None


def test_more_than_a_slot_can_mark_is_returned(slot: Slot) -> None:
    slot.give(grant(*range(1, RING + 1)), set())
    returned = slot.give(grant(RING + 1), set())
    assert returned is not None
    assert list(returned.attempt) == [RING + 1]
    slot.answered([1])
    assert slot.give(grant(RING + 2), set()) is None


def test_what_a_dead_child_held_is_told_apart(slot: Slot, memory: SlotMemory) -> None:
    slot.give(grant(1, 2, 3, 4), set())
    # The first has ended and gave its entry to the third; its result went with its process.
    for ordinal, entry in ((0, 0), (1, 5), (2, 0)):
        memory.start(ordinal, entry, now=1)
    held, death = slot.lost_nodes("killed by SIGKILL")
    assert list(held.attempts) == [1, 2, 3, 4]
    assert sorted(death.running) == [2, 3]
    assert list(death.unstarted) == [1, 4]


def test_the_next_child_starts_with_a_clean_book(slot: Slot, memory: SlotMemory) -> None:
    slot.give(grant(1, 2), set())
    memory.start(0, 0, now=1)
    slot.reset()
    assert len(slot) == 0
    slot.give(grant(3), set())
    returned = slot.take_back()
    assert returned is not None
    assert list(returned.attempt) == [3]


def test_the_last_words_of_a_child_are_read_though_others_hold_its_socket(slot: Slot, child: socket.socket) -> None:
    slot.give(grant_of(call("echo", 1)), set())
    child.sendall(pack_outcome(Kind.RESULTS, Outcome([1], [], bytes(3000))) * 3)
    assert len(slot.read_out()) == 3


@pytest.mark.parametrize(
    ("status", "text"), [(3 << 8, "exited with code 3"), (9, "killed by SIGKILL"), (11, "killed by SIGSEGV")]
)
def test_causes_are_for_people(status: int, text: str) -> None:
    assert cause_of(Ended(0, 1, status, 34_000_000)) == f"{text}, peak memory 34 MB"


def test_a_child_that_lost_its_socket_has_a_cause_of_its_own() -> None:
    assert "its socket to the worker was closed" in cause_of(Ended(0, 1, CUT_OFF << 8, 0))


# --- timeouts and cancelling -------------------------------------------------------------------------------


def timed(*timeouts: float) -> pb.Grant:
    made = grant(*range(1, len(timeouts) + 1))
    made.timeout.extend(timeouts)
    return made


def test_a_node_without_a_timeout_is_never_overdue(slot: Slot, memory: SlotMemory) -> None:
    slot.give(grant(1), set())
    memory.start(0, entry=0, now=0)
    assert slot.overdue(1e9, 0) is None


def test_a_node_is_overdue_its_timeout_after_it_started(slot: Slot, memory: SlotMemory) -> None:
    slot.give(timed(0, 3), set())
    assert slot.overdue(100, 0) == 103, "it may start now"
    memory.start(0, entry=0, now=0)
    memory.start(1, entry=0, now=101 * 10**9)
    assert slot.overdue(102, 0) == 104
    assert slot.overdue(104, 0) == 104
    held, results = slot.overrun()
    assert list(held.attempts) == [2]
    [failure] = results.failures
    assert (failure.attempt, failure.type) == (2, "builtins.TimeoutError")
    assert failure.message == "it ran for longer than its timeout of 3 seconds"


def test_a_node_whose_timeout_is_final_fails_for_good(slot: Slot, memory: SlotMemory) -> None:
    made = timed(3, 3)
    made.timeout_is_final.extend([False, True])
    slot.give(made, set())
    for ordinal in (0, 1):
        memory.start(ordinal, entry=ordinal, now=0)
    assert slot.overdue(100, 0) == 100
    assert {failure.attempt: failure.final for failure in slot.overrun()[1].failures} == {1: False, 2: True}


def test_an_async_node_has_the_grace_to_end_by_itself(slot: Slot, memory: SlotMemory) -> None:
    slot.give(timed(3), set())
    memory.start(0, entry=1, now=100 * 10**9)
    assert slot.overdue(104, 5) == 108


def test_a_node_that_ended_before_its_process_was_stopped_has_not_failed(slot: Slot, memory: SlotMemory) -> None:
    slot.give(timed(3), set())
    memory.start(0, entry=0, now=0)
    assert slot.overdue(4, 0) == 4
    memory.finish(0)
    assert not slot.overrun()[1].failures


def test_cancelling_drops_what_has_not_started_and_tells_what_runs(slot: Slot, memory: SlotMemory) -> None:
    slot.give(grant(1, 2, 3), set())
    memory.start(0, entry=0, now=1)
    assert slot.cancel([1, 2, 99]) == [0]
    assert memory.is_cancelled(0, 0)
    assert list(slot.held.attempts) == [3]
    assert slot.runs_any([0])
    memory.finish(0)
    assert not slot.runs_any([0])
    assert [memory.start(ordinal, entry=0, now=2) for ordinal in (1, 2)] == [False, True]


def test_cancelling_is_tried_again_where_the_child_was_stopped_inside_the_lock(slot: Slot, memory: SlotMemory) -> None:
    slot.give(grant(1), set())
    memory._lock.acquire()
    assert slot.cancel([1]) is None
    assert list(slot.held.attempts) == [1]
