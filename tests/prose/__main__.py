"""Print all findings below the given paths, or below all sources and documents."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.prose.findings import DOCUMENTS, SOURCES, findings_below
from tests.support.packages import ROOT


def main(arguments: list[str]) -> int:
    paths = [Path(argument).resolve() for argument in arguments]
    findings = list(findings_below(paths or [ROOT / name for name in (*SOURCES, *DOCUMENTS)]))
    print("\n".join([*map(str, findings), f"{len(findings)} findings"]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
