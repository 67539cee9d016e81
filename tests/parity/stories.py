"""The list of stories: each is a fact that holds inline and with real processes alike."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tests.parity.stage import Stage

Story = Callable[[Stage], None]
#: The modules with the stories, and their titles in the table of the documents.
SUBJECTS = {
    "values": "values",
    "growing": "graphs that grow",
    "failures": "failures",
    "retries": "retries and deaths",
    "instances": "instances",
    "control": "queues, limits and actions",
    "samples": "the samples",
}
#: Stories in which real processes die.
deadly: set[Story] = set()
_found: dict[str, list[Story]] = {}


def story(play: Story) -> Story:
    """Add a story to the suite; its name is the fact."""
    _found.setdefault(play.__module__.rpartition(".")[2], []).append(play)
    return play


def deadly_story(play: Story) -> Story:
    """Add a story in which real processes die: not for a worker that has only its own."""
    deadly.add(play)
    return story(play)


def stories() -> dict[str, list[Story]]:
    """Return all stories by the names of their modules."""
    for name in SUBJECTS:
        import_module(f"tests.parity.{name}")
    return {name: _found[name] for name in SUBJECTS}


def fact(play: Story) -> str:
    """Return the fact as a sentence."""
    return play.__name__.replace("_", " ")


def table() -> str:
    """Return the table of the documents."""
    rows = [f"| {SUBJECTS[name]} | {fact(play)} |" for name, plays in stories().items() for play in plays]
    return "\n".join(["| subject | equal in all three |", "| --- | --- |", *rows])
