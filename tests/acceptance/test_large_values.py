"""Values of any size pass through client, broker and workers; past the limit they are refused before they go."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from dagorama import DAGDefinition, RequestRejected, dagorama, resolve
from tests.support.brokers import launch_broker
from tests.support.worker_command import await_that
from tests.support.workers import launch_workers

MIB = 1024 * 1024
WORD = 8  #: bytes of a number in a block


def content(size: int) -> bytes:
    """Bytes that do not repeat early, so that pieces in a wrong order would show."""
    block = b"".join(sha256(str(number).encode()).digest() for number in range(1000))
    return (block * (size // len(block) + 1))[:size]


class Sizes(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, given: bytes, made: int) -> tuple[str, bytes]:
        return self.both(given, self.make(made))

    @dagorama().syncfn
    def make(self, size: int) -> bytes:
        return content(size)

    @dagorama().syncfn
    def both(self, given: bytes, made: bytes) -> tuple[str, bytes]:
        return sha256(given).hexdigest(), made


class Join(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, pieces: int) -> int:
        return self.weigh([self.make(number) for number in range(pieces)])

    @dagorama().syncfn
    def make(self, number: int) -> bytes:
        return bytes([number]) * MIB

    @dagorama().syncfn
    def weigh(self, pieces: list[bytes]) -> int:
        assert [piece[0] for piece in pieces] == list(range(len(pieces)))
        return sum(map(len, pieces))


class Chain(DAGDefinition):
    """A block that nodes hand on; its end says in which processes they ran."""

    def entrypoint(self, nodes: int, size: int) -> bytes:
        block = self.made(size)
        for _ in range(nodes):
            block = self.handed_on(block)
        return block

    @dagorama().syncfn
    def made(self, size: int) -> bytes:
        return content(size)

    @dagorama().syncfn
    def handed_on(self, block: bytes) -> bytes:
        return block[WORD:] + os.getpid().to_bytes(WORD, "big")


def resident(process: int) -> int:
    """Return the bytes of memory that a process has."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB + 1, 256 * MIB], ids=["4 MiB", "4 MiB + 1", "256 MiB"])
def test_an_argument_and_a_result_of_this_size_arrive_as_they_were(size: int, tmp_path: Path) -> None:
    given = content(size)
    with launch_broker(port=0, store=f"sqlite:///{tmp_path / 'store.db'}"), launch_workers(2):
        digest, made = resolve(*Sizes()(given, size), timeout=100)
    assert digest == sha256(given).hexdigest()
    assert made == given


def test_five_results_of_a_mebibyte_go_into_one_node() -> None:
    with launch_broker(port=0), launch_workers(2):
        assert resolve(*Join()(5), timeout=60) == 5 * MIB


def test_a_chain_hands_a_block_on_in_one_process_which_forgets_it_when_it_is_idle() -> None:
    nodes, size = 3, 128 * MIB
    with launch_broker(port=0), launch_workers(2):
        block = resolve(*Chain()(nodes, size), timeout=100)
        assert block[: -nodes * WORD] == content(size)[nodes * WORD :]
        ends = block[-nodes * WORD :]
        [process] = {int.from_bytes(ends[at : at + WORD], "big") for at in range(0, len(ends), WORD)}
        await_that(lambda: resident(process) < size)


def test_what_is_past_the_limit_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.chunks.VALUE_LIMIT", 2 * MIB)
    with launch_broker(port=0), pytest.raises(RequestRejected, match="is more than dagorama carries"):
        Sizes()(content(3 * MIB), 1)
