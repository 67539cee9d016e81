"""Fetch the vendored JavaScript again: `make vendor`, or `python -m tests.dashboard.vendoring [--accept]`.

The manifest in each folder names for each file the npm package, its version, its licence, the file in the package
and its SHA-256. To take a new version, write it into the manifest and run `make vendor ARGS=--accept`, which writes the
new hashes; without `--accept` a file with another hash is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Files for pages, and files for tests only.
FOLDERS = (ROOT / "dagorama_dashboard" / "static" / "vendor", ROOT / "tests" / "dashboard" / "vendor")


@dataclass(frozen=True)
class Vendored:
    """One file that was copied from an npm package and not modified."""

    file: str
    package: str
    version: str
    licence: str
    source: str  #: the path in the package
    sha256: str  #: hexadecimal


def manifest(folder: Path) -> list[Vendored]:
    return [Vendored(**row) for row in json.loads((folder / "manifest.json").read_text())]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_manifest(folder: Path, rows: list[Vendored]) -> None:
    lines = ",\n".join(f"  {json.dumps(asdict(row))}" for row in rows)
    (folder / "manifest.json").write_text(f"[\n{lines}\n]\n")


def _archive(package: str, version: str, folder: Path) -> Path:
    """Download the archive of a package with npm, and return its path."""
    into = folder / f"{package}-{version}".replace("/", "-")
    into.mkdir(exist_ok=True)
    if not list(into.glob("*.tgz")):
        command = ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", str(into)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(into.glob("*.tgz"))


def _content(archive: Path, source: str) -> bytes:
    with tarfile.open(archive) as opened:
        found = opened.extractfile(f"package/{source}")
        assert found is not None, f"{source} of {archive.name} is no file"
        return found.read()


def _fetch(folder: Path, archives: Path, accept: bool) -> list[str]:
    """Write the files of one manifest, and return a sentence for each file that was refused."""
    rows, refused = [], []
    for row in manifest(folder):
        data = _content(_archive(row.package, row.version, archives), row.source)
        if digest(data) != row.sha256 and not accept:
            refused.append(f"{row.package} {row.version}: {row.source} is not the file that {folder} names")
        else:
            (folder / row.file).write_bytes(data)
        rows.append(replace(row, sha256=digest(data)))
    if accept:
        _write_manifest(folder, rows)
    return refused


def main(arguments: list[str]) -> int:
    if shutil.which("npm") is None:
        print("make vendor fetches files with npm, which is not installed here.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as archives:
        refused = [line for folder in FOLDERS for line in _fetch(folder, Path(archives), "--accept" in arguments)]
    print("\n".join(refused or ["All vendored files agree with their manifests."]))
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
