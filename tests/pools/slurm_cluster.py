"""A Slurm cluster of one node, with its own munge, in a folder: for tests that run as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.pools.stories import until

CONFIGURATION = """
ClusterName=dagorama
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=300
SlurmdTimeout=300
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _daemon(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _munge(folder: Path) -> tuple[str, ...]:
    """Write a key, and return the command of a munge daemon that uses nothing outside of the folder."""
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "log", "pid", "seed")]
    return ("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)


@contextmanager
def slurm_or_skip(folder: Path) -> Iterator[Path]:
    """Run a cluster whose commands find it by SLURM_CONF; skip the test if that cannot be."""
    if not shutil.which("slurmctld") or not shutil.which("munged"):
        pytest.skip("Slurm is not installed: run `make test-pools` as root on Debian")
    if os.getuid():
        pytest.skip("a Slurm cluster of the tests needs root")
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, controller=_free_port(), daemon=_free_port())
    configuration = folder / "slurm.conf"
    configuration.write_text(text)
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File=/dev/null\n")
    (folder / "cgroup.conf").write_text("")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", f"{configuration}")
        stack.enter_context(_daemon(*_munge(folder)))
        until((folder / "munge.socket").exists)
        stack.enter_context(_daemon("slurmctld", "-D", "-i", "-f", f"{configuration}"))
        stack.enter_context(_daemon("slurmd", "-D", "-N", host, "-f", f"{configuration}"))
        until(_is_idle)
        yield folder


def _is_idle() -> bool:
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
    return done.stdout.strip() == "idle"
