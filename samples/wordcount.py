"""Counts the identifiers in the Python standard library's own source: real files, a graph that follows their shape.

Run: python samples/wordcount.py [--packages N] [--workers N]

The entry node fans out one node for each package. A package's node looks at its files and decides: a big file gets
a node to itself, small ones are counted in groups. Every package merges what its nodes found, and one last node
merges the packages. At the end a plain loop in this process counts the same files, and both must say the same.
`--packages N` takes the first N packages only.
"""

import sysconfig
import tokenize
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from time import monotonic

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

BIG_FILE = 100_000  # bytes from which a file is counted by a node of its own
GROUP = 200_000  # bytes of small files that one node counts
LOOSE = "."  # stands for the modules that belong to no package
INSTALLED = {"site-packages", "dist-packages"}  # lies below the standard library and is not part of it


@dataclass
class Tally:
    """The identifiers in some files, and how many nodes it took to count them."""

    identifiers: Counter[str] = field(default_factory=Counter)
    files: int = 0
    unreadable: int = 0  # files that are no valid source, on purpose: they belong to Python's own tests
    nodes: int = 0


class CountLibrary(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, library: Path, packages: list[str]) -> Tally:
        return self.merge([self.count_package(library, package) for package in packages])

    @dagorama().syncfn
    def count_package(self, library: Path, package: str) -> Tally:
        small: list[Path] = []
        parts: list[Tally] = []
        for file in files_of(library, package):
            if file.stat().st_size >= BIG_FILE:
                parts.append(self.count_big_file(file))
            else:
                small.append(file)
        parts += [self.count_group(group) for group in groups_of(small)]
        return self.merge(parts)

    @dagorama().syncfn
    def count_big_file(self, file: Path) -> Tally:
        return count_files([file])

    @dagorama().syncfn
    def count_group(self, files: list[Path]) -> Tally:
        return count_files(files)

    @dagorama().syncfn
    def merge(self, parts: list[Tally]) -> Tally:
        """Add up `parts`, together with the node that created this one."""
        merged = Tally(nodes=2)
        for part in parts:
            merged.identifiers.update(part.identifiers)
            merged.files += part.files
            merged.unreadable += part.unreadable
            merged.nodes += part.nodes
        return merged


def packages_of(library: Path) -> list[str]:
    folders = {file.parent.name for file in library.glob("*/*.py")} - INSTALLED
    return [LOOSE, *sorted(folders)]


def files_of(library: Path, package: str) -> list[Path]:
    return sorted(library.glob("*.py") if package == LOOSE else library.joinpath(package).rglob("*.py"))


def groups_of(files: list[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.stat().st_size
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def identifiers_of(file: Path) -> list[str]:
    with tokenize.open(file) as source:  # reads the encoding that the file declares
        tokens = tokenize.generate_tokens(source.readline)
        return [token.string for token in tokens if token.type == tokenize.NAME and not iskeyword(token.string)]


def count_files(files: Iterable[Path]) -> Tally:
    tally = Tally(nodes=1)
    for file in files:
        tally.files += 1
        try:
            tally.identifiers.update(identifiers_of(file))
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            tally.unreadable += 1
    return tally


def on_dagorama(library: Path, packages: list[str], workers: int) -> Tally:
    with launch_broker(port=0), launch_workers(workers):
        return resolve(*CountLibrary()(library, packages), timeout=600)


def in_a_plain_loop(library: Path, packages: list[str]) -> Tally:
    return count_files(file for package in packages for file in files_of(library, package))


def print_table(tally: Tally) -> None:
    ranked = sorted(tally.identifiers.items(), key=lambda entry: (-entry[1], entry[0]))
    for place, (identifier, count) in enumerate(ranked[:20], start=1):
        print(f"{place:3}  {identifier:<20} {count:>9,}")


def main() -> None:
    parser = ArgumentParser(description="count the identifiers of the standard library")
    parser.add_argument("--packages", type=int, help="take only the first N packages")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    library = Path(sysconfig.get_path("stdlib"))
    packages = packages_of(library)[: options.packages]

    start = monotonic()
    counted = on_dagorama(library, packages, options.workers)
    halfway = monotonic()
    plain = in_a_plain_loop(library, packages)
    end = monotonic()

    print_table(counted)
    print(f"{counted.files:,} files ({counted.unreadable} that do not tokenize), {counted.nodes:,} nodes")
    print(f"{halfway - start:.1f}s on dagorama with {options.workers} workers, {end - halfway:.1f}s in a plain loop")
    assert counted.identifiers == plain.identifiers
    assert (counted.files, counted.unreadable) == (plain.files, plain.unreadable)
    print("same as the plain loop")


if __name__ == "__main__":
    main()
