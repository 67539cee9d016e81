"""Print all findings below the given paths, or with `--budget` the numbers for tests/test_prose.py."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.prose.findings import DOCUMENTS, ROOT, SOURCES, budget_of, findings_below


def main(arguments: list[str]) -> int:
    paths = [Path(argument).resolve() for argument in arguments if not argument.startswith("--")]
    findings = list(findings_below(paths or [ROOT / name for name in (*SOURCES, *DOCUMENTS)]))
    if "--budget" in arguments:
        counts = Counter(budget_of(finding.path) for finding in findings)
        print("\n".join(f'    "{name}": {count},' for name, count in sorted(counts.items())))
    else:
        print("\n".join([*map(str, findings), f"{len(findings)} findings"]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
