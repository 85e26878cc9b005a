"""How long a process waits before anything happens: `import softad` against `import torch`, and `softad --help`.

Whole processes, in turn within each round, the byte code being compiled already; medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
MOST_OF_TORCH, MOST_HELP_SECONDS = 1.10, 0.5

PROCESSES = {
    "import torch": [sys.executable, "-c", "import torch"],
    "import softad": [sys.executable, "-c", "import softad"],
    "from softad import SoftAD": [sys.executable, "-c", "from softad import SoftAD"],
    "softad --help": [str(Path(sys.executable).with_name("softad")), "--help"],
}


def seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(argv)
    for command in PROCESSES.values():
        seconds_of(command)
    shown = subprocess.run(PROCESSES["softad --help"], check=True, capture_output=True, text=True).stdout
    if "Usage" not in shown:
        raise SystemExit("softad --help shows no usage: there is nothing to time")
    rounds = [{name: seconds_of(command) for name, command in PROCESSES.items()} for _ in range(options.rounds)]
    medians = {name: statistics.median(taken[name] for taken in rounds) for name in PROCESSES}
    figures = {
        name: statistics.median(taken[name] / taken["import torch"] for taken in rounds)
        for name in ("import softad", "from softad import SoftAD")
    }
    reached = {name: ratio <= MOST_OF_TORCH for name, ratio in figures.items()}
    reached["softad --help"] = medians["softad --help"] <= MOST_HELP_SECONDS
    table = Table(title="Start of a process")
    for column in ("", "seconds", "of import torch", "wanted", "reached"):
        table.add_column(column)
    for name, seconds in medians.items():
        ratio = f"{figures[name]:.2f}" if name in figures else ""
        wanted = f"at most {MOST_OF_TORCH}" if name in figures else ""
        wanted = f"at most {MOST_HELP_SECONDS} s" if name == "softad --help" else wanted
        table.add_row(name, f"{seconds:.3f}", ratio, wanted, {True: "yes", False: "NO", None: ""}[reached.get(name)])
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = {"seconds": medians, "of_torch": figures, "rounds": options.rounds, "reached": reached}
    (RESULTS / "imports.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
