"""The vendored JavaScript is what its manifests say, with its licences."""

from pathlib import Path

import pytest

from tests.dashboard.vendoring import FOLDERS, Vendored, digest, manifest

ROWS = [(folder, row) for folder in FOLDERS for row in manifest(folder)]


@pytest.mark.parametrize(("folder", "row"), ROWS, ids=[row.file for _, row in ROWS])
def test_a_vendored_file_is_unmodified(folder: Path, row: Vendored) -> None:
    assert digest((folder / row.file).read_bytes()) == row.sha256


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parts[-3])
def test_the_manifest_names_all_files_of_its_folder(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"manifest.json", *(row.file for row in manifest(folder))}


def test_each_package_comes_with_its_licence() -> None:
    licensed = {row.package for _, row in ROWS if row.source == "LICENSE"}
    assert licensed == {row.package for _, row in ROWS}
    assert all(row.licence for _, row in ROWS)
