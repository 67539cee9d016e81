"""Power loss: what reached the disk is what was synced, and of what was written later any part, in any order.

A kill cannot show this, because the kernel keeps what a dead process wrote. So writes and syncs of a working broker are
recorded (powerlog.c), and its files are built again as a power cut would have left them at any moment.
`python -m tests.proof.power [--cuts N] [--seed N]` ends with 1 when something acknowledged is lost, or when one of four
weaker brokers gets by unnoticed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dagorama_broker.errors import StoreError
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import begun

from .progress import made

HERE = Path(__file__).parent
SECTOR = 512
WEAKER = ("OFF", "NORMAL", "ack-before-commit", "folders not synced")
_HEAD = Struct("<cHqI")


class Event(NamedTuple):
    kind: str
    path: str
    offset: int
    data: bytes


def compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def record(folder: Path, how: str, instances: int, seed: int) -> list[Event]:
    """Let a broker work in `folder`, and return what it did to its files."""
    cc = compiler()
    if cc is None:
        raise RuntimeError("no C compiler (cc, gcc or clang): power loss cannot be recorded")
    shim, log, files = folder / "powerlog.so", folder / "log", folder / "files"
    subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "powerlog.c", "-ldl", "-lpthread"], check=True)
    files.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "POWERLOG": str(log), "POWERLOG_FOLDER": str(files)}
    command = [sys.executable, "-m", "tests.proof.power_workload", str(files), how, str(instances), str(seed)]
    subprocess.run(command, env=environment, cwd=HERE.parents[1], check=True)
    return list(_read(log.read_bytes(), str(files.resolve())))


def _read(log: bytes, root: str) -> Iterator[Event]:
    at = 0
    while at < len(log):
        kind, path_size, offset, size = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        path = log[at : at + path_size].decode().removeprefix(root).lstrip("/")
        data = log[at + path_size : at + path_size + size]
        at += path_size + size
        if not path.endswith(("-shm", ".lock")):
            new = data.decode().removeprefix(root).lstrip("/").encode() if kind == b"R" else data
            yield Event(kind.decode(), path, offset, new)


@dataclass
class _File:
    """What of a file is on the disk, and what may be."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


class DiskModel:
    """Files as a strict disk has them: content is there when the file was synced, a name when its folder was."""

    def __init__(self) -> None:
        self.names: dict[str, _File] = {}  #: on the disk
        self.now: dict[str, _File] = {}  #: as programs see it
        self.folders = {"."}  #: on the disk
        self.pending: list[Event] = []  #: what was done to names
        self.acknowledged: list[dict[str, str]] = []

    def take(self, event: Event) -> None:
        kind, path = event.kind, event.path
        if path == "acks":
            if kind == "W":
                self.acknowledged.append(json.loads(event.data))
        elif kind == "D":
            self.pending.append(event)
        elif kind == "R":
            self.now[event.data.decode()] = self.now.pop(path)
            self.pending.append(event)
        elif kind == "U":
            if self.now.pop(path, None) is not None:
                self.pending.append(event)
        elif kind == "S" and path not in self.now:
            self._sync_folder(path)
        else:
            self._change(event)

    def _change(self, event: Event) -> None:
        file = self.now.get(event.path)
        if file is None:
            file = self.now[event.path] = _File()
            self.pending.append(event._replace(kind="C"))
        if event.kind == "S":
            for pending in file.pending:
                _apply(file.synced, pending)
            file.pending.clear()
        else:
            file.pending.append(event)

    def _sync_folder(self, folder: str) -> None:
        kept = []
        for event in self.pending:
            path = event.data.decode() if event.kind == "R" else event.path
            if str(Path(path).parent) == (folder or "."):
                self._name(self.names, self.folders, event)
            else:
                kept.append(event)
        self.pending = kept

    def _name(self, names: dict[str, _File], folders: set[str], event: Event) -> None:
        if event.kind == "D":
            folders.add(event.path)
        elif event.kind == "C":
            names[event.path] = self._file_now(event.path)
        elif event.kind == "R":
            file = names.pop(event.path, None) or self._file_now(event.data.decode())
            names[event.data.decode()] = file
        elif event.kind == "U":
            names.pop(event.path, None)

    def _file_now(self, path: str) -> _File:
        """The file that was made under this name, whatever it is called now."""
        if path in self.now:
            return self.now[path]
        renamed = next((e.data.decode() for e in self.pending if e.kind == "R" and e.path == path), None)
        return self.now.get(renamed or "", _File())

    def crash(self, folder: Path, chance: random.Random) -> None:
        """Write what is left after a power cut."""
        names, folders = dict(self.names), set(self.folders)
        for event in self.pending[: chance.randint(0, len(self.pending))]:
            self._name(names, folders, event)
        for path, file in names.items():
            if not folders.issuperset(map(str, Path(path).parents)):
                continue
            left = bytearray(file.synced)
            for event in _survivors(file.pending, chance):
                _apply(left, event)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(left)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "T":
        if event.offset < len(content):
            del content[event.offset :]
        else:
            content.extend(bytes(event.offset - len(content)))
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


def _survivors(pending: list[Event], chance: random.Random) -> Iterator[Event]:
    """Of what was not synced: nothing, all, a beginning, or sectors at random."""
    how = chance.choice(("nothing", "all", "beginning", "sectors", "sectors"))
    if how == "nothing":
        return
    if how != "sectors":
        yield from pending if how == "all" else pending[: chance.randint(0, len(pending))]
        return
    share = chance.random()
    for event in pending:
        if event.kind == "T":
            if chance.random() < share:
                yield event
            continue
        for at in range(0, len(event.data), SECTOR):
            if chance.random() < share:
                yield event._replace(offset=event.offset + at, data=event.data[at : at + SECTOR])


# --- the judgement --------------------------------------------------------------------------------------


@dataclass
class Verdict:
    cuts: int = 0
    acknowledged: int = 0  #: in all cuts together
    events: int = 0
    lost: list[str] = field(default_factory=list)


def judge(events: list[Event], cuts: int, seed: int, folder: Path) -> Verdict:
    """Cut the power at `cuts` moments; half of them right after an acknowledgement."""
    chance, verdict = random.Random(seed), Verdict(events=len(events))
    acks = [place for place, event in enumerate(events) if event.path == "acks"]
    moments = [chance.choice(acks) + 1 if cut % 2 else chance.randint(1, len(events)) for cut in range(cuts)]
    model, at = DiskModel(), 0
    for cut, moment in enumerate(sorted(moments)):
        while at < moment:
            model.take(events[at])
            at += 1
        left = folder / f"cut{cut}"
        left.mkdir()
        model.crash(left, chance)
        verdict.cuts += 1
        verdict.acknowledged += len(model.acknowledged)
        verdict.lost += [f"cut {cut} after event {moment}: {loss}" for loss in _losses(left, model.acknowledged)]
        shutil.rmtree(left)
        made()
    return verdict


def _losses(folder: Path, acknowledged: list[dict[str, str]]) -> list[str]:
    store = SqliteStore(folder / "store.db", busy=0.0)
    try:
        begun(store)
    except StoreError as error:
        return [f"the store does not open: {error}"] if acknowledged else []
    try:
        store.live()
        return [loss for what in acknowledged if (loss := _loss(store, what))]
    except StoreError as error:
        return [f"the store cannot be read: {error}"]
    finally:
        store.close()


def _loss(store: SqliteStore, what: dict[str, str]) -> str:
    if "instance" in what:
        ids = [bytes.fromhex(what["origin"]) + counter.to_bytes(4, "big") for counter in range(3)]
        is_there = store.instance(bytes.fromhex(what["instance"])) is not None and len(store.find(ids)) == 3
        return "" if is_there else f"instance {what['instance']} is lost"
    if "large" in what:
        chunks = store.get_large(bytes.fromhex(what["large"]))
        return f"large value {what['large']} is lost" if chunks is None or not b"".join(chunks) else ""
    id = bytes.fromhex(what["node"])
    found = store.find([id]).get(id)
    if found is None or found.ended is None:
        return f"the result of node {what['node']} is lost"
    return "" if store.values([found.key])[found.key].hex() == what["value"] else f"node {what['node']}: another value"


def prove(how: str, cuts: int, seed: int, instances: int = 80) -> Verdict:
    with TemporaryDirectory(prefix="power-") as name:
        folder = Path(name)
        return judge(record(folder, how, instances, seed), cuts, seed, folder)


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.power", description="Power cuts at any moment.")
    parser.add_argument("--cuts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed, cuts, found_out = False, 0, 0
    for how in ("FULL", *WEAKER):
        verdict = prove(how, options.cuts, options.seed)
        as_it_should = bool(verdict.lost) == (how != "FULL")
        failed = failed or not as_it_should
        cuts, found_out = cuts + verdict.cuts, found_out + (how != "FULL" and bool(verdict.lost))
        print(f"{how.ljust(18)} {verdict.cuts} cuts in {verdict.events} writes and syncs, {verdict.acknowledged} times"
              f" something acknowledged looked for, {len(verdict.lost)} times missing"
              f"{'' if as_it_should else ': VIOLATION'}")  # fmt: skip
        for loss in verdict.lost[:5] if how == "FULL" else ():
            print(f"  {loss}")
    print(f"{cuts} cuts, {found_out} of {len(WEAKER)} weaker brokers found out")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
