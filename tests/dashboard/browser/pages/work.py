"""Definitions that run on the broker whose pages the tests of this folder look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagorama import DAGDefinition, DAGInstance, dagorama, start, watch


class Reading(DAGDefinition):
    """Fails as long as its file is not there."""

    @dagorama().syncfn
    def entrypoint(self, path: str) -> str:
        return self.shown(self.read(path))

    @dagorama().syncfn
    def read(self, path: str) -> str:
        with open(path) as file:
            return file.read()

    @dagorama().syncfn
    def shown(self, text: str) -> str:
        return text


class Listening(DAGDefinition):
    """Prints what comes through a pipe, until its other end is closed."""

    @dagorama().syncfn
    def entrypoint(self, path: str) -> str:
        return self.listen(path)

    @dagorama().syncfn
    def listen(self, path: str) -> str:
        print("listening", flush=True)
        with open(path) as pipe:
            for line in pipe:
                print(line, end="", flush=True)
        return "heard"


class Speaker:
    """The other end of the pipe that a node listens to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # opens at once, whether a node listens or not

    def say(self, text: str) -> None:
        os.write(self._pipe, f"{text}\n".encode())

    def stop(self) -> None:
        """End the node that listens, after it has read everything."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


@contextmanager
def speaker(folder: Path) -> Iterator[Speaker]:
    made = Speaker(folder / "pipe")
    try:
        yield made
    finally:
        made.stop()


def listening(speaker: Speaker, **labels: str) -> str:
    """Start an instance whose node listens; wait until it does, and return the ID of the instance."""
    instance = started(Listening(), f"{speaker.path}", **labels)
    for now in watch(instance):
        if now.running:
            break
    return f"{instance.instance_id}"


def started(definition: DAGDefinition, *arguments: object, **labels: str) -> DAGInstance:
    instance: DAGInstance
    instance, _ = start(definition, labels=labels)(*arguments)
    return instance


def ended(definition: DAGDefinition, *arguments: object, **labels: str) -> str:
    """Start an instance, wait until it has ended, and return its ID."""
    instance = started(definition, *arguments, **labels)
    for _ in watch(instance):
        pass
    return f"{instance.instance_id}"
