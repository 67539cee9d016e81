"""Stories of the samples, except for samples that wait or need certificates."""

from __future__ import annotations

import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.parity.stage import Failed, Stage, awaited
from tests.parity.stories import story


def _sample(name: str) -> Any:
    # The folder is no package for type checkers, because each sample is a program.
    return import_module(f"samples.{name}")


@story
def one_node(stage: Stage) -> None:
    assert stage.told(*_sample("one_node").Greeting()("dagorama")) == "Hello, dagorama!"


@story
def branching(stage: Stage) -> None:
    assert abs(stage.told(*_sample("branching").Integrate()(0.0, 1.0))[0] - 2 / 3) < 1e-4


@story
def failure(stage: Stage) -> None:
    found = stage.told(*_sample("failure").Report()(["2 x 9.90", "3 x free", "1 x 5.00"]))
    assert isinstance(found, Failed)
    assert found.attempts == 2


@story
def outcomes(stage: Stage) -> None:
    assert stage.told(*_sample("outcomes").Report()(_sample("outcomes").ORDERS))[0] == "2 of 4 orders, 24.80 in all"


@story
def gpu_taint(stage: Stage) -> None:
    assert stage.told(*_sample("gpu_taint").Caption()(["cat", "dog"])) == ["a picture of a cat", "a picture of a dog"]


@story
def reattach(stage: Stage) -> None:
    instance, _ = _sample("reattach").Squares()([1, 2, 3, 4])
    assert stage.told(*_sample("reattach").Squares.attach(instance.instance_id)) == 30


@story
def retries(stage: Stage) -> None:
    assert stage.told(*_sample("retries").Download()(stage.folder / "download")) == 18
    assert stage.told(*_sample("retries").Hopeless()(stage.folder / "hopeless")).attempts == 2


@story
def async_dag(stage: Stage) -> None:
    assert stage.told(*awaited(_sample("async_dag").Crawl()(3))) == 100 + 101 + 102


@story
def wordcount(stage: Stage) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    assert stage.told(*_sample("wordcount").CountLibrary()(library, ["json", "wsgiref"])).files > 5
