"""A pipeline of pictures: any worker shrinks them, workers with a GPU label them, each process with one loaded model.

Run: python samples/pictures.py [--pictures N] [--sheet FILE]

`classify` has the taint GPU, so only a worker with `--toleration GPU` runs it. The model is a resource: each process of
that worker loads it when it classifies its first picture, and keeps it for the others. The pictures are small grey
bitmaps, drawn here with the standard library alone; `--sheet` writes them, sorted by label, as a PGM file.
"""

import random
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from dagorama import DAGDefinition, dagorama, resolve, resource
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

SIZE = 48  # pixels on each side of a picture
THUMBNAIL = 12
SHADES = " .:-=+*#%@"

SHAPES: dict[str, Callable[[float, float], bool]] = {
    "circle": lambda x, y: 0.4 < x * x + y * y < 0.8,
    "cross": lambda x, y: min(abs(x), abs(y)) < 0.2,
    "stripes": lambda x, y: int(y * 4 + 8) % 2 == 0,
}


# --- the pipeline -----------------------------------------------------------------------------------------


@dataclass
class Label:
    name: str
    thumbnail: bytes
    model: str  #: which of the loaded models has said so


class Model:
    """Stands for weights that take seconds to load: knows a thumbnail of each shape, and takes the nearest."""

    def __init__(self) -> None:
        self.id = uuid4().hex
        self.weights = {name: shrunk(drawn(name, noise=0)) for name in SHAPES}

    def classify(self, thumbnail: bytes) -> str:
        return min(self.weights, key=lambda name: distance(self.weights[name], thumbnail))


@resource
def model() -> Iterator[Model]:
    yield Model()  # what comes after the yield would close it, when the process ends


class Pictures(DAGDefinition):
    @dagorama
    def entrypoint(self, files: list[Path]) -> list[Label]:
        return [self.classify(self.thumbnail(file)) for file in files]

    @dagorama
    def thumbnail(self, file: Path) -> bytes:
        return shrunk(read_pgm(file))

    @dagorama(taint_name="GPU")
    def classify(self, thumbnail: bytes) -> Label:
        loaded = model()
        return Label(loaded.classify(thumbnail), thumbnail, loaded.id)


# --- pictures: one byte for each pixel, row by row ----------------------------------------------------------


def drawn(shape: str, noise: int) -> bytes:
    places = [2 * i / (SIZE - 1) - 1 for i in range(SIZE)]
    inside = (SHAPES[shape](x, y) for y in places for x in places)
    return bytes((255 - noise if is_inside else 0) + random.randint(0, noise) for is_inside in inside)


def shrunk(picture: bytes) -> bytes:
    """Return the thumbnail: each of its pixels is the mean of a square of the picture."""
    step = SIZE // THUMBNAIL
    corners = (y * SIZE + x for y in range(0, SIZE, step) for x in range(0, SIZE, step))
    rows = ([corner + i * SIZE for i in range(step)] for corner in corners)
    return bytes(sum(sum(picture[row : row + step]) for row in square) // step**2 for square in rows)


def distance(one: bytes, other: bytes) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def write_pgm(file: Path, width: int, pixels: bytes) -> None:
    file.write_bytes(b"P5 %d %d 255\n%b" % (width, len(pixels) // width, pixels))


def read_pgm(file: Path) -> bytes:
    header, _, pixels = file.read_bytes().partition(b"\n")
    if header != b"P5 %d %d 255" % (SIZE, SIZE) or len(pixels) != SIZE * SIZE:
        raise ValueError(f"{file} is no grey bitmap of {SIZE} x {SIZE} pixels")
    return pixels


def as_text(thumbnails: list[bytes]) -> str:
    rows = range(0, THUMBNAIL * THUMBNAIL, THUMBNAIL)
    return "\n".join(
        "  ".join(
            "".join(SHADES[pixel * 10 // 256] * 2 for pixel in each[row : row + THUMBNAIL]) for each in thumbnails
        )
        for row in rows
    )


# --- the program ------------------------------------------------------------------------------------------


@contextmanager
def gpu_worker(processes: int) -> Iterator[None]:
    """Run `dagorama worker --toleration GPU`, as a machine with a GPU would; it imports this module."""
    command = [sys.executable, "-m", "dagorama", "worker", "--toleration", "GPU", "--concurrency", str(processes)]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def main() -> None:
    parser = ArgumentParser(description="label pictures")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--sheet", type=Path, help="write all thumbnails, sorted by label, to this PGM file")
    options = parser.parse_args()
    shapes = [name for _, name in zip(range(options.pictures), [*SHAPES] * options.pictures, strict=False)]

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.pgm" for number in range(len(shapes))]
        for file, shape in zip(files, shapes, strict=True):
            write_pgm(file, SIZE, drawn(shape, noise=120))
        with launch_broker(port=0), launch_workers(1), gpu_worker(processes=2):
            labels = resolve(*Pictures()(files), timeout=60)

    print(as_text([label.thumbnail for label in labels[:3]]))
    print("  ".join(f"{label.name:^{2 * THUMBNAIL}}" for label in labels[:3]))
    counts = Counter(label.name for label in labels)
    models = {label.model for label in labels}
    print(f"{len(labels)} pictures: {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}")
    print(f"{len(models)} of 2 processes loaded a model")
    if options.sheet:
        ordered = sorted(labels, key=lambda label: label.name)
        write_pgm(options.sheet, THUMBNAIL, b"".join(label.thumbnail for label in ordered))
    assert [label.name for label in labels] == shapes
    assert 1 <= len(models) <= 2


if __name__ == "__main__":
    import pictures  # under its own name, because other workers cannot import the `__main__` of this process

    pictures.main()
