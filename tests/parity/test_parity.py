"""Each story is played inline, in worker processes, and in a worker of one process: the records must be equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagorama_testing import SimulatedWorker, inline
from dagorama_testing.processes import Processes
from tests.parity.stage import Stage
from tests.parity.stories import Story, deadly, fact, stories, table

ROOT = Path(__file__).parents[2]
WORKERS = [SimulatedWorker(tolerations=["GPU"])]
STORIES = [pytest.param(play, id=f"{name}: {fact(play)}") for name, plays in stories().items() for play in plays]


def _inline(play: Story, folder: Path) -> list[object]:
    with inline(WORKERS) as world:
        stage = Stage(folder, world)
        play(stage)
        stage.close()
    return stage.record


def _on_processes(play: Story, folder: Path, processes: Processes) -> list[object]:
    stage = Stage(folder)
    with processes.environment():
        try:
            play(stage)
            stage.close()
        finally:
            processes.cancel_unfinished()
    return stage.record


def _records(play: Story, folder: Path, processes: Processes) -> tuple[list[object], list[object]]:
    # Both use a folder of the same length, because paths are in messages.
    folders = [folder / name for name in ("a", "b")]
    for each in folders:
        each.mkdir()
    return _inline(play, folders[0]), _on_processes(play, folders[1], processes)


@pytest.mark.parametrize("play", STORIES)
def test_a_story_is_the_same_inline_and_in_worker_processes(
    play: Story, tmp_path: Path, worker_processes: Processes
) -> None:
    inline_record, record = _records(play, tmp_path, worker_processes)
    assert inline_record == record


def test_all_stories_are_the_same_inline_and_in_a_worker_of_one_process(tmp_path: Path, one_process: Processes) -> None:
    # One test, so that one broker and one worker are started for all of them.
    different = []
    for name, plays in stories().items():
        for play in (each for each in plays if each not in deadly):
            folder = tmp_path / name / play.__name__
            folder.mkdir(parents=True)
            inline_record, record = _records(play, folder, one_process)
            if inline_record != record:
                different.append((fact(play), inline_record, record))
    assert different == []


def test_the_table_of_the_documents_lists_each_story() -> None:
    assert table() in (ROOT / "docs" / "reference" / "testing.md").read_text()
