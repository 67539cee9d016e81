"""`dagorama pool dask`, `ray` and `slurm`."""

from __future__ import annotations

import sys
from typing import Any

import click

from dagorama.cli.base import label_pair, report_errors
from dagorama.cli.parameters import Number
from dagorama.cli.pool import options_of, pool_options, run_pool, warn_of_local_address
from dagorama.errors import SettingsError


@click.command()
@click.argument("address")
@click.option(
    "--resource", "resources", multiple=True, metavar="NAME",
    help="Use only Dask workers with this resource; GPU also adds the toleration. May be repeated.",
)  # fmt: skip
@pool_options
def dask(address: str, resources: tuple[str, ...], drain_on_exit: bool, **flags: Any) -> None:
    """Run workers next to the Dask workers of the scheduler at ADDRESS, such as tcp://scheduler:8786.

    Each Dask worker has at most one worker of the pool. It leaves when its Dask worker is closed, after its running
    nodes, and ends at once if that is killed. dagorama must be installed in the environment of the Dask workers.
    """
    from dagorama.pools.on_dask import DaskEngine
    from dagorama.pools.worker_spec import GPU

    with report_errors():
        options = options_of("dask", flags).with_gpu(GPU in resources)
        worker = options.worker()
        warn_of_local_address([address])
        engine = DaskEngine(worker, address, resources=resources)
    run_pool(engine, options, worker, drain_on_exit)


def _amount(text: str) -> tuple[str, float]:
    """Return a resource and its amount from `name=amount`. Raises BadParameter."""
    name, amount = label_pair(text)
    try:
        return name, float(amount)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a resource and its amount, such as TPU=1.") from None


@click.command()
@click.option("--address", default="auto", show_default=True, help="The Ray cluster.")
@click.option(
    "--num-cpus", type=Number(min=0), default=1.0, show_default=True, help="CPUs of each worker."
)  # fmt: skip
@click.option(
    "--num-gpus", type=Number(min=0), default=0.0, show_default=True,
    help="GPUs of each worker, which also add the toleration GPU.",
)  # fmt: skip
@click.option(
    "--resource", "resources", type=_amount, multiple=True, metavar="NAME=AMOUNT",
    help="Another resource of each worker. May be repeated.",
)  # fmt: skip
@click.option("--working-dir", metavar="DIR", help="A folder that Ray copies to its machines, with the user's modules.")
@pool_options
def ray(
    address: str, num_cpus: float, num_gpus: float, resources: tuple[tuple[str, float], ...], working_dir: str | None,
    drain_on_exit: bool, **flags: Any,
) -> None:  # fmt: skip
    """Run workers as actors of a Ray cluster, each with CPUs and GPUs of its own.

    Ray starts machines for actors that wait, if its autoscaler is on. A worker ends with its actor. dagorama must be
    installed on the machines of the cluster.
    """
    from dagorama.pools.on_ray import RayEngine

    with report_errors():
        options = options_of("ray", flags).with_gpu(num_gpus > 0)
        worker = options.worker()
        warn_of_local_address([address])
        environment = None if working_dir is None else {"working_dir": working_dir}
        engine = RayEngine(
            options.name, address, environment, num_cpus=num_cpus, num_gpus=num_gpus, resources=dict(resources)
        )  # fmt: skip
    run_pool(engine, options, worker, drain_on_exit)


@click.command()
@click.option(
    "--time", default="", metavar="LIMIT",
    help="Limit of each job in one of Slurm's forms, such as 1:00:00: its worker leaves in time.",
)  # fmt: skip
@click.option(
    "--python", default=sys.executable, metavar="PATH",
    help="The interpreter on the machines of the cluster.  [default: the one of this command]",
)  # fmt: skip
@pool_options
@click.argument("sbatch_options", nargs=-1, type=click.UNPROCESSED)
def slurm(
    time: str, python: str, sbatch_options: tuple[str, ...], drain_on_exit: bool, **flags: Any
) -> None:  # fmt: skip
    """Run workers as batch jobs. Options after -- are given to sbatch, such as -- --partition=gpu --gres=gpu:1.

    With a GPU among them, the workers tolerate the taint GPU. On SIGTERM, and before the time of the job is over, a
    worker lets running nodes finish within the grace period.
    """
    from dagorama.pools.on_slurm import SlurmEngine, asks_for_gpu, slurm_worker

    with report_errors():
        options = options_of("slurm", flags).with_gpu(asks_for_gpu(sbatch_options))
        try:
            worker = slurm_worker(options, time)
            warn_of_local_address(["Slurm"])
            engine = SlurmEngine(options.name, sbatch_options, time=time, python=python)
        except SettingsError:
            raise
        except ValueError as error:
            raise click.UsageError(f"{error}") from None
    run_pool(engine, options, worker, drain_on_exit)
