"""`dagorama pool`: the engines are found, and ordinary mistakes give a sentence."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints

import click
import pytest

from dagorama.cli import pool as module
from tests.support.commands import invoke, printed, refusal

ENGINES = ("dask", "ray", "slurm")


def test_the_engines_are_listed_and_have_the_options_of_all_pools() -> None:
    text = printed("pool", "--help")
    for engine in ENGINES:
        assert f"  {engine} " in text
        options = printed("pool", engine, "--help")
        for option in ("--name", "--max", "--min", "--concurrency", "--toleration", "--idle", "--drain-idle", "--host"):
            assert option in options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ray", "--max", "0"], "--max"),
        (["slurm", "--min", "4", "--max", "3"], "min is 4 and max is 3"),
        (["slurm", "--name", "a b"], "the name of a pool has 1 to 60 letters"),
        (["slurm", "--time", "soon"], "'soon' is not a time limit of Slurm"),
        (["slurm", "--", "--array=1-4"], "the pool sets --array itself"),
        (["dask"], "ADDRESS"),
        (["ray", "--resource", "TPU=many"], "'TPU=many' is not a resource and its amount"),
        (["nomad"], "nomad"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], said: str) -> None:
    code, text = refusal("pool", *arguments)
    assert (code, said in text) == (2, True), text


@pytest.mark.parametrize(
    ("library", "arguments"), [("distributed", ["dask", "tcp://127.0.0.1:1"]), ("ray", ["ray"])], ids=["dask", "ray"]
)
def test_without_the_library_a_sentence_names_what_to_install(
    library: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    code, text = refusal("pool", *arguments)
    assert code == 1
    assert f"needs a package: pip install 'dagorama[{arguments[0]}]'" in text
    assert "See docs/reference/errors.md#enginerefused" in text


def test_without_slurm_a_sentence_says_where_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, text = refusal("pool", "slurm")
    assert code == 1
    assert "squeue is not installed: a pool on Slurm must run on a machine with Slurm's commands" in text


def test_an_address_that_only_this_machine_reaches_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    told = "warning: the broker's address is localhost, which workers on other machines cannot reach"
    monkeypatch.delenv("DAGORAMA_HOST", raising=False)
    assert told in refusal("pool", "slurm")[1]
    monkeypatch.setenv("DAGORAMA_HOST", "broker.example.org")
    assert told not in refusal("pool", "slurm")[1]


@click.command()
def nomad() -> None:
    """Run workers on Nomad."""
    click.echo("it runs")


def test_other_packages_add_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    others = EntryPoints([
        EntryPoint("nomad", f"{__name__}:nomad", module.GROUP), EntryPoint("gone", "no_such_module:gone", module.GROUP)
    ])  # fmt: skip
    monkeypatch.setattr(module, "entry_points", lambda **chosen: others.select(**chosen))
    assert printed("pool", "nomad") == "it runs\n"
    assert "the pool gone cannot be loaded from no_such_module:gone" in invoke("pool", "gone").output
