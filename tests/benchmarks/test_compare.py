"""The command says what is wrong with its arguments, and shows the figures of an earlier run."""

from __future__ import annotations

from pathlib import Path

import compare
import pytest
from peers.figures import Figures
from peers.parts import FULL
from peers.turns import Turn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "ray,rai"), "there is no rai; choose from executor, dask, ray"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--markdown", "--quick"), "--markdown is for whole runs"),
        (("--figures", "absent.json"), "absent.json does not have the figures"),
    ],
)
def test_a_mistake_in_the_command_is_a_sentence(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.main(arguments)
    assert message in f"{ended.value}{capsys.readouterr().err}"


def saved(tmp_path: Path, trouble: str) -> str:
    figures = Figures({"machine": "two cores"}, 3, FULL._asdict(), {"dagorama": "dagorama", "ray": "Ray"})
    figures.add("dagorama", Turn({"values": 200.0}))
    figures.add("ray", Turn({"values": 400.0}, trouble=trouble))
    file = tmp_path / "figures.json"
    figures.write(file)
    return str(file)


def test_figures_of_an_earlier_run_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--figures", saved(tmp_path, "")]) == 0
    assert "| values, 32 of 4 MiB, MB/s | 200 | **400 (0.50, lost)** |" in capsys.readouterr().out


def test_a_run_with_a_system_that_failed_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--figures", saved(tmp_path, "Ray ended with code 1: broken")]) == 1
    assert "Ray ended with code 1: broken" in capsys.readouterr().out
