"""What the stored cells of the detection benchmark say, read for the page and its pictures."""

from __future__ import annotations

from typing import Any

from scipy import stats

from softad.simulation_losses import CHANGES

CELLS = ((2000, 200), (2000, 1000), (500, 50))
"""Rows of the reference and of a window in which detectors are compared."""

SCAN = "scan, 0.10"

NAMES = {
    "scan, 0.05": "scan, budget 0.05",
    "scan, 0.10": "scan, budget 0.10",
    "scan with defaults, 0.05": "scan with its defaults, budget 0.05",
    "scan with defaults, 0.10": "scan with its defaults, budget 0.10",
}


def interval(alarms: int, lives: int) -> tuple[float, float]:
    """Exact 95 % interval of a share."""
    found = stats.binomtest(alarms, lives).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def calm_cell(cells: dict[str, Any], cell: tuple[int, int]) -> dict[str, Any] | None:
    return cells.get(f"changed/{cell[0]}/{cell[1]}/none/1.0")


def cell_title(cell: tuple[int, int]) -> str:
    return f"{cell[0]:,} rows, windows of {cell[1]:,}"


def changes_of(cells: dict[str, Any], cell: tuple[int, int]) -> dict[str, dict[str, Any]]:
    start = f"changed/{cell[0]}/{cell[1]}/"
    order = list(CHANGES)
    names = [name.removeprefix(start) for name in cells if name.startswith(start) and "/none/" not in name]
    names.sort(key=lambda name: (order.index(name.split("/")[0]), -float(name.split("/")[1])))
    return {name: cells[start + name] for name in names}


def change_title(change: str) -> str:
    name, strength = change.split("/")
    return name if float(strength) == 1.0 else f"half of {name}"


def detected(found: dict[str, Any]) -> float:
    judged = found["lives"] - found["early"]
    return 1 - found["missed"] / judged if judged else 0.0
