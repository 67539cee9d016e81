"""Slurm's forms of times and GPUs, and the commands by which a pool speaks to Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dagorama.pools.engine import EngineRefused, Phase
from dagorama.pools.on_slurm import SlurmEngine, asks_for_gpu, lifetime_within, seconds_of
from dagorama.pools.options import PoolOptions


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5_400), ("1:30", 90), ("1:30:00", 5_400), ("2-0", 172_800), ("1-2:30", 95_400), ("1-0:0:5", 86_405)],
)
def test_a_limit_in_each_of_the_forms_of_slurm_is_read(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["", "soon", "1:2:3:4", "-1", "1-", "0", "UNLIMITED", "1.5"])
def test_a_limit_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(ValueError, match=r"is (not a time limit of Slurm|no limit)"):
        seconds_of(time)


def test_a_worker_leaves_before_slurm_sends_its_signal() -> None:
    assert lifetime_within("1:00:00", grace=25) == 3_600 - 25 - 10 - 60
    assert lifetime_within("1:00", grace=25) == 30


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["--gres=gpu:1"], True),
        (["--gres", "gpu:a100:2"], True),
        (["--gres=shard:1,gpu:1"], True),
        (["--gpus=1"], True),
        (["--gpus-per-node=2"], True),
        (["-G", "1"], True),
        (["--gres=lustre:1"], False),
        (["--partition=gpu"], False),
        ([], False),
    ],
)
def test_a_gpu_among_the_options_of_sbatch_is_seen(arguments: list[str], asks: bool) -> None:
    assert asks_for_gpu(arguments) is asks


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that note what they are called with, and say what a test has written for them."""
    for name in ("sbatch", "squeue", "scancel"):
        command = tmp_path / name
        command.write_text(
            f'#!/bin/sh\n[ -s {tmp_path}/refusal ] && cat {tmp_path}/refusal >&2 && exit 1\n'
            f'echo "{name} $*" >> {tmp_path}/calls\n[ {name} = sbatch ] && cat > {tmp_path}/script\n'
            f"cat {tmp_path}/{name}.out 2> /dev/null || true\n"
        )  # fmt: skip
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_workers_are_an_array_of_jobs_whose_script_becomes_the_worker(slurm: Path) -> None:
    (slurm / "sbatch.out").write_text("17;cluster\n")
    engine = SlurmEngine("p", ["--partition=gpu"], time="1:00:00", python="/opt/python")
    worker = PoolOptions("p", include_queues=("it's",)).worker()
    assert engine.start(2, worker) == ["17_1", "17_2"]
    assert engine.start(1, worker) == ["17"]
    calls = (slurm / "calls").read_text().splitlines()
    common = "sbatch --parsable --job-name=dagorama-p --signal=B:TERM@35"
    assert calls[1:] == [
        f"{common} --array=1-2 --time=1:00:00 --partition=gpu", f"{common} --time=1:00:00 --partition=gpu"
    ]  # fmt: skip
    script = (slurm / "script").read_text()
    assert "exec /opt/python -m dagorama.worker --concurrency 1 --grace 25 --include-queue 'it'\"'\"'s'" in script
    assert "\nexec" in script


def test_jobs_of_the_pool_are_its_members_and_are_drained_by_their_phase(slurm: Path) -> None:
    (slurm / "squeue.out").write_text("3 RUNNING\n17_1 PENDING\n17_2 SUSPENDED\n")
    engine = SlurmEngine("p")
    assert engine.alive() == {"3": Phase.RUNNING, "17_1": Phase.PENDING, "17_2": Phase.RUNNING}
    engine.drain(["3", "17_1", "99"])
    calls = (slurm / "calls").read_text().splitlines()
    assert f"--user={os.getuid()} --name=dagorama-p" in calls[0]
    assert calls[-2:] == ["scancel --state=PENDING 17_1", "scancel --batch --signal=TERM 3"]


def test_the_words_of_slurm_are_in_the_refusal(slurm: Path) -> None:
    engine = SlurmEngine("p")
    (slurm / "refusal").write_text("sbatch: error: Batch job submission failed:\n Invalid partition name specified\n")
    with pytest.raises(EngineRefused, match=r"sbatch: .*submission failed: Invalid partition name specified"):
        engine.start(1, PoolOptions("p").worker())
