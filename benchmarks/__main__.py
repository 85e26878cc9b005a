"""The benchmarks, one after the other: `python -m benchmarks`, or `python -m benchmarks ingest training`.

By name only, since they take long on two cores: `gates` (500 promotions, half an hour), `detection` (whole lives),
`load` (many files and models, years of weeks, memory of the servers; an hour).
"""

from __future__ import annotations

import subprocess
import sys

ALL = ("imports", "training", "objectives", "ingest", "cycle", "scan", "monitoring", "export")


def main(names: list[str]) -> int:
    """Run each in a process of its own, so that none inherits another's imports or memory."""
    failed = []
    for name in names or ALL:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nnot reached: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
