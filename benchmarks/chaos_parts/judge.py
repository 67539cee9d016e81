"""Judges by what the executions wrote down, what the client was told, and the public interface after a last restart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from chaos_parts.client import Acknowledged, Client
from chaos_parts.graph import Made, plain
from dagorama import BrokerUnavailable, DagoramaError


class Line(NamedTuple):
    what: str
    label: str
    parent: str
    token: str
    pid: int


@dataclass
class Verdict:
    nodes: int = 0
    executions: int = 0
    recorded_twice: int = 0
    acknowledged_lost: int = 0
    wrong: int = 0
    strangers: int = 0  #: children of executions that did not count
    late_refused: int = 0
    problems: list[str] = field(default_factory=list)


def lines_in(folder: Path) -> list[Line]:
    texts = [(text, int(file.stem)) for file in folder.glob("*.log") for text in file.read_text().splitlines()]
    split = [(text.split(), pid) for text, pid in texts]
    return [Line(what, label, parent, token, pid) for (what, label, parent, token), pid in split]


def judge(client: Client, folder: Path, depth: int, stopped: Iterable[int], patience: float) -> Verdict:
    verdict = Verdict()
    recorded: dict[str, str] = {}
    for entry in client.acknowledged:
        try:
            made = _result(entry, patience)
        except (DagoramaError, TimeoutError) as error:
            verdict.acknowledged_lost += 1
            verdict.problems.append(f"{entry.label}: {type(error).__name__}: {str(error)[:300]}")
            continue
        _judge_value(verdict, entry.label, made, client.results.get(entry.label), depth)
        recorded |= made.tokens
    lines = lines_in(folder)
    verdict.nodes = len(recorded)
    verdict.executions = sum(line.what == "start" for line in lines)
    _judge_parents(verdict, lines, recorded)
    verdict.late_refused = _late(lines, recorded, set(stopped))
    return verdict


def _result(entry: Acknowledged, patience: float) -> Made:
    """Ask a broker that is slow to restart again: work that it lost would be missing however late it is asked."""
    until = monotonic() + patience
    while True:
        try:
            made = entry.ask(patience)
        except BrokerUnavailable:
            if monotonic() > until:
                raise
        else:
            assert made is not None
            return made


def _judge_value(verdict: Verdict, label: str, made: Made, before: Made | None, depth: int) -> None:
    if made.value != plain(depth, label):
        verdict.wrong += 1
        verdict.problems.append(f"{label}: {made.value} is not {plain(depth, label)}")
    if made.torn:
        verdict.recorded_twice += made.torn
    if before is not None and before != made:
        verdict.recorded_twice += 1
        verdict.problems.append(f"{label}: its value changed after it was seen")


def _judge_parents(verdict: Verdict, lines: Iterable[Line], recorded: dict[str, str]) -> None:
    """Count nodes that ran although the execution that created them was not the recorded one."""
    for line in lines:
        creator = line.label.rsplit("/", 1)[0] if "/" in line.label else line.label.rsplit(".", 1)[0]
        if line.what == "start" and line.parent != "-" and recorded.get(creator, line.parent) != line.parent:
            verdict.strangers += 1
            verdict.problems.append(f"{line.label} ran as a child of an execution that did not count")


def _late(lines: Iterable[Line], recorded: dict[str, str], stopped: set[int]) -> int:
    """Count executions that ended in a surviving process of a stopped worker and were not recorded."""
    by_process: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if line.pid in stopped:
            by_process[line.pid].append(line)
    late = 0
    for own in by_process.values():
        ends = [place for place, line in enumerate(own) if line.what == "end"]
        late += sum(recorded.get(own[place].label, own[place].token) != own[place].token for place in ends[:-1])
    return late
