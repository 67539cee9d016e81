"""The actions of people: how each is called, and what it does."""

from __future__ import annotations

from typing import NamedTuple


class Action(NamedTuple):
    """Something that a person can do."""

    call: str  #: the rpc, which the role must allow
    title: str
    effect: str  #: what it does, in a sentence
    is_destructive: bool = False


ACTIONS = {
    "cancel": Action("Cancel", "Cancel", "Unfinished nodes are cancelled, and so are nodes that depend on them.", True),
    "retry": Action("Retry", "Retry", "Failed nodes run again, and so do the nodes that failed because of them."),
    "retry-new-code": Action(
        "Retry", "Retry with the deployed code",
        "Failed nodes run again with the code that the workers have now. The key of this machine signs for it.",
    ),
    "wait-again": Action(
        "Retry", "Wait again",
        "The node drops its signal and waits for another one. All nodes that depend on it run again.", True,
    ),
    "delete": Action("Delete", "Delete", "Ended instances are removed with their values and logs.", True),
    "drain": Action("DrainWorker", "Drain", "The worker finishes its running nodes, and leaves.", True),
    "rebind": Action(
        "Rebind", "Run with the deployed code",
        "Nodes that no worker's code fits run with the code that the workers have now. The key of this machine signs"
        " for it.",
    ),
    "pause": Action(
        "PauseQueue", "Pause", "Workers get no nodes of the queue until it is resumed. Running nodes continue."
    ),
    "resume": Action("PauseQueue", "Resume", "Workers get nodes of the queue again."),
    "pause-schedule": Action(
        "PauseSchedule", "Pause",
        "The schedule starts nothing until it is resumed, even if it is deployed again. Its instances continue.",
    ),
    "resume-schedule": Action(
        "PauseSchedule", "Resume", "The schedule continues with its next time. Times that have passed are skipped."
    ),
    "remove-schedule": Action(
        "RemoveSchedule", "Remove", "The schedule is removed. Instances that it has started continue.", True
    ),
}  # fmt: skip
