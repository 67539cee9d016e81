"""Pools on Slurm: a batch job for each dagorama worker. Three commands of Slurm are used: sbatch, squeue and scancel.

The job's script becomes the worker, so that signals to the job reach it, and Slurm's own limits hold for it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from re import fullmatch, search
from typing import Unpack

from dagorama.pools.engine import EngineRefused, Phase
from dagorama.pools.options import PoolKeywords, PoolOptions
from dagorama.pools.pool import Pool
from dagorama.pools.worker_spec import WorkerSpec

#: Seconds for an answer of Slurm's controller.
TIMEOUT_S = 30.0
#: Seconds beyond the grace period in which a worker sends its last reports before its time is over.
LAST_REPORTS_S = 10.0
#: Slurm may send a signal this many seconds early.
SIGNAL_RESOLUTION_S = 60.0
#: States of jobs that have not begun; jobs in other states of `_STATES` run.
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD"})
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,SIGNALING,RESIZING,REQUEUED,REQUEUE_HOLD"
#: Options of sbatch that the pool needs for itself.
_OURS = ("--array", "-a", "--job-name", "-J", "--signal", "--wrap", "--parsable")
_SCRIPT = """#!/bin/sh
# A worker of dagorama.
exec {command} --name {pool}/"${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
"""


class SlurmEngine:
    """Runs workers as batch jobs of this user; the IDs of its members are the IDs of the jobs.

    `arguments` are given to `sbatch` as they are. `time` is the limit of a job in one of Slurm's forms, such as
    `1:00:00`. `python` is the interpreter on the machines of the cluster; dagorama must be installed in it.
    """

    def __init__(
        self, pool: str, arguments: Sequence[str] = (), *, time: str = "", python: str = sys.executable
    ) -> None:  # fmt: skip
        """Check the arguments. Raises ValueError if they contradict the pool, EngineRefused if Slurm is missing."""
        for argument in arguments:
            if argument.split("=")[0] in _OURS:
                raise ValueError(
                    f"the pool sets {argument.split('=')[0]} itself: leave it out of the options of sbatch"
                )
        self._name = f"dagorama-{pool}"
        self._arguments = [*([f"--time={time}"] if time else []), *arguments]
        self._python = python
        self.alive()

    # --- Engine -----------------------------------------------------------------------------------------

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        command = shlex.join([self._python, "-m", "dagorama.worker", *worker.flags()])
        script = _SCRIPT.format(command=command, pool=shlex.quote(worker.pool))
        signal = f"--signal=B:TERM@{round(worker.grace + LAST_REPORTS_S)}"
        array = [f"--array=1-{n}"] if n > 1 else []
        asked = ["sbatch", "--parsable", f"--job-name={self._name}", signal, *array, *self._arguments]
        job = _output(asked, script, worker.environment).strip().split(";")[0]
        return [f"{job}_{number}" for number in range(1, n + 1)] if array else [job]

    def alive(self) -> Mapping[str, Phase]:
        asked = [
            "squeue", "--noheader", "--array", "--sort=i", f"--user={os.getuid()}", f"--name={self._name}",
            f"--states={_STATES}", "--format=%i %T",
        ]  # fmt: skip
        found = (line.split() for line in _output(asked).splitlines() if line.strip())
        return {id: Phase.PENDING if state in _WAITING else Phase.RUNNING for id, state in found}

    def drain(self, ids: Sequence[str]) -> None:
        phases = self.alive()
        running = [id for id in ids if phases.get(id) is Phase.RUNNING]
        pending = [id for id in ids if phases.get(id) is Phase.PENDING]
        if pending:
            _output(["scancel", "--state=PENDING", *pending])
        if running:
            # To the worker only: what its nodes have started must not be ended before them.
            _output(["scancel", "--batch", "--signal=TERM", *running])


class SlurmPool(Pool):
    """A pool of batch jobs. Use it in a `with` block on a machine with Slurm's commands.

    `arguments` are options of `sbatch`, such as `["--partition=gpu", "--gres=gpu:1"]`; with a GPU among them the
    workers run nodes with the taint `GPU`. `time` is the limit of a job, such as `"1:00:00"`: its worker takes no nodes
    for which the rest is too short. Raises EngineRefused if Slurm does not answer, ValueError and SettingsError.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        time: str = "",
        python: str = sys.executable,
        **options: Unpack[PoolKeywords],
    ) -> None:
        chosen = PoolOptions.of("slurm", options).with_gpu(asks_for_gpu(arguments))
        worker = slurm_worker(chosen, time)
        super().__init__(SlurmEngine(chosen.name, arguments, time=time, python=python), chosen, worker)


def slurm_worker(options: PoolOptions, time: str) -> WorkerSpec:
    """Return the workers of jobs with this limit, which leave in time for it. Raises ValueError and SettingsError."""
    return options.worker(lifetime_within(time, options.worker().grace) if time else None)


def lifetime_within(time: str, grace: float) -> float:
    """Return the lifetime in seconds of a worker whose job has this limit. Raises ValueError.

    It is over before Slurm sends SIGTERM, so that a node that still runs gets the rest of the time; half of the limit
    if that is very short.
    """
    limit = seconds_of(time)
    return max(limit / 2, limit - grace - LAST_REPORTS_S - SIGNAL_RESOLUTION_S)


def seconds_of(time: str) -> float:
    """Return the seconds of a time in one of Slurm's forms: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S. Raises ValueError."""
    days, dash, rest = time.rpartition("-")
    numbers = rest.split(":")
    if not fullmatch(r"(\d+-)?\d+(:\d+){0,2}", time):
        raise ValueError(f"{time!r} is not a time limit of Slurm, such as 90 (minutes), 1:30:00 or 2-0")
    if dash:
        hours, minutes, seconds = [*map(int, numbers), 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = map(int, numbers)
    else:
        hours, minutes, seconds = 0, *[*map(int, numbers), 0][:2]
    found = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if not found:
        raise ValueError(f"{time!r} is no limit: with it, Slurm would not limit the job")
    return found


def asks_for_gpu(arguments: Sequence[str]) -> bool:
    """Return whether options of sbatch ask for a GPU."""
    text = " ".join(arguments)
    return search(r"(^| )(--gres[= ](\S*,)?(gres/|gres:)?gpu|--gpus|-G)", text) is not None


def _output(command: Sequence[str], script: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Return the stdout of a command of Slurm. Raises EngineRefused."""
    try:
        done = subprocess.run(
            command, input=script, env={**os.environ, **(environment or {})}, capture_output=True, text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except FileNotFoundError:
        raise EngineRefused(
            f"{command[0]} is not installed: a pool on Slurm must run on a machine with Slurm's commands"
        ) from None
    except subprocess.TimeoutExpired:
        raise EngineRefused(f"{command[0]} did not answer within {TIMEOUT_S:g} seconds") from None
    if done.returncode:
        raise EngineRefused(f"{command[0]}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
