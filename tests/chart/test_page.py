"""The values that docs/how-to/kubernetes.md shows work, with the Secrets that it makes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.chart.rendered import NEEDS_HELM, Rendered, template
from tests.chart.tools import ROOT

pytestmark = NEEDS_HELM
PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
FIRST, DATABASE, SCALED = re.findall(r"^```yaml\n(# values\.yaml\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def installed(folder: Path, *blocks: str) -> Rendered:
    """The release with the first values of the page, and then with others that replace some of them."""
    files = []
    for number, block in enumerate((FIRST, *blocks)):
        file = folder / f"{number}.yaml"
        file.write_text(block)
        files += ["--values", str(file)]
    done = template(*files)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(each for each in yaml.safe_load_all(done.stdout) if each))


def test_the_secrets_of_the_page_have_what_the_chart_reads(tmp_path: Path) -> None:
    commands = re.findall(r"create secret generic (\S+) ((?:\\\n|.)*)", PAGE)
    made = {(name, key) for name, rest in commands for key in re.findall(r"--from-file=([\w.]+)", rest)}
    found = installed(tmp_path)
    assert {secret for pod in found.pods for secret in pod.secrets} <= made


def test_the_certificate_of_the_page_has_the_name_by_which_the_broker_is_called(tmp_path: Path) -> None:
    done = template("--show-only", "templates/pools.yaml", *values_of(tmp_path), name="dagorama", space="dagorama")
    assert done.returncode == 0, done.stderr
    (pool,) = (each for each in yaml.safe_load_all(done.stdout) if each)
    (host,) = (
        each["value"] for each in pool["spec"]["template"]["spec"]["containers"][0]["env"] if "HOST" in each["name"]
    )
    assert f"subjectAltName=DNS:{host}," in PAGE


def values_of(folder: Path) -> list[str]:
    file = folder / "values.yaml"
    file.write_text(FIRST)
    return ["--values", str(file)]


def test_the_further_values_of_the_page_go_with_the_first_ones(tmp_path: Path) -> None:
    assert installed(tmp_path, DATABASE).broker.owner["spec"]["replicas"] == 2


def test_pools_are_scaled_by_keda(tmp_path: Path) -> None:
    """The page says to replace `replicas` by `autoscale`; here all pools are replaced."""
    without = yaml.safe_load(FIRST)
    del without["pools"]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(without))
    scaled = tmp_path / "scaled.yaml"
    scaled.write_text(SCALED)
    done = template("--values", str(file), "--values", str(scaled))
    assert done.returncode == 0, done.stderr
    assert {"ScaledObject", "ScaledJob"} <= {each["kind"] for each in yaml.safe_load_all(done.stdout) if each}
