"""One bad file does not stop a report: it is delivered with what is known, and completed when the file is repaired.

Run: python samples/report.py

Each file of sales is read by a node of its own. `outcome` gives the report a Failure in place of a file that cannot be
read, and the report names it. When the file is repaired, a retry with `downstream` reads that file alone, and makes
the report again; the files that were good are not read twice.
"""

import csv
import tempfile
from collections import Counter
from pathlib import Path

from dagorama import DAGDefinition, Failure, dagorama, outcome, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

SALES = {
    "amsterdam": [("tulips", "120"), ("bikes", "480.50")],
    "berlin": [("bikes", "310"), ("tulips", "seventy")],
    "copenhagen": [("bikes", "95.25"), ("lamps", "60")],
}


class Report(DAGDefinition):
    @dagorama
    def entrypoint(self, files: list[Path]) -> str:
        return self.page(files, [outcome(self.sales(file)) for file in files])

    @dagorama
    def sales(self, file: Path) -> Counter[str]:
        """Add up the sales of one file by product, in cents."""
        with file.with_suffix(".read").open("a") as reads:
            print("once more", file=reads)
        with file.open(newline="") as rows:
            return Counter({row["product"]: round(float(row["amount"]) * 100) for row in csv.DictReader(rows)})

    @dagorama
    def page(self, files: list[Path], sales: list[Counter[str] | Failure]) -> str:
        known = [one for one in sales if not isinstance(one, Failure)]
        total = sum(known, Counter[str]())
        lines = [f"{product:<12} {cents / 100:>10.2f}" for product, cents in sorted(total.items())]
        lines.append(f"{'total':<12} {total.total() / 100:>10.2f}")
        for file, one in zip(files, sales, strict=True):
            if isinstance(one, Failure):
                lines.append(f"without {file.stem}: {one.message}")
        return "\n".join(lines)


def write_sales(file: Path, rows: list[tuple[str, str]]) -> None:
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([("product", "amount"), *rows])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, launch_broker(port=0), launch_workers(2):
        files = [Path(folder) / f"{city}.csv" for city in SALES]
        for file in files:
            write_sales(file, SALES[file.stem])

        instance, promise = Report()(files)
        first = resolve(instance, promise, timeout=30)
        print(first)

        write_sales(files[1], [("bikes", "310"), ("tulips", "70")])
        instance.retry(downstream=True)
        second = resolve(instance, promise, timeout=30)
        print("\nberlin.csv is repaired:")
        print(second)
        reads = [len(file.with_suffix(".read").read_text().splitlines()) for file in files]

    assert "total            755.75\nwithout berlin: could not convert string to float: 'seventy'" in first
    assert second.endswith("total           1135.75")
    assert reads == [1, 2, 1]


if __name__ == "__main__":
    main()
