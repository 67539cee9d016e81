"""The client of chaos.py: submits until it is told to stop, and writes down each acknowledgement when it gets it."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from chaos_parts.graph import Chaos, Made
from dagorama import BrokerError, DAGInstance, DagoramaError, DAGPromise, resolve


@dataclass
class Acknowledged:
    """An instance that the broker said it has."""

    label: str
    instance: UUID
    promise: UUID

    def ask(self, timeout: float | None = None) -> Made | None:
        instance, promise = DAGInstance(self.instance, Chaos()), DAGPromise[Made](self.promise)
        return resolve(instance, promise) if timeout is None else resolve(instance, promise, timeout=timeout)


@dataclass
class Client:
    folder: Path
    depth: int
    most: int  #: unfinished instances at a time
    acknowledged: list[Acknowledged] = field(default_factory=list)
    results: dict[str, Made] = field(default_factory=dict)  #: seen while brokers died
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._file = os.open(self.folder / "acknowledged", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            if len(self.acknowledged) - len(self.results) >= self.most:
                self._look()
                continue
            number += 1
            self._submit(f"i{number}")

    def _submit(self, label: str) -> None:
        try:
            instance, promise = Chaos()(str(self.folder / "log"), self.depth, label)
        except BrokerError:
            return  # not acknowledged: nothing is claimed of it
        entry = Acknowledged(label, instance.instance_id, promise.identifier)
        self._write({"label": label, "instance": str(entry.instance), "promise": str(entry.promise)})
        self.acknowledged.append(entry)

    def _look(self) -> None:
        for entry in [entry for entry in self.acknowledged if entry.label not in self.results][:4]:
            try:
                made = entry.ask()
            except DagoramaError:  # the broker is away; or it failed, which the judge will see
                made = None
            if made is not None:
                self._write({"label": entry.label, "value": made.value})
                self.results[entry.label] = made
        time.sleep(0.02)

    def _write(self, line: dict[str, object]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
