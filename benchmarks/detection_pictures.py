"""The pictures of docs/detection.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.detection_figures import (
    CELLS,
    NAMES,
    SCAN,
    calm_cell,
    cell_title,
    change_title,
    changes_of,
    detected,
    interval,
)


def false_alarm_picture(cells: dict[str, Any], path: Path) -> None:
    present = [cell for cell in CELLS if calm_cell(cells, cell)]
    if not present:
        return
    plot = _pyplot()
    detectors = list((calm_cell(cells, present[0]) or {})["comes"])[::-1]
    figure, axes = plot.subplots(figsize=(8.0, 0.34 * len(detectors) + 1.2))
    for lift, cell, marker in zip((0.22, 0.0, -0.22), present, "osD", strict=False):
        for place, detector in enumerate(detectors):
            found = (calm_cell(cells, cell) or {})["comes"][detector]
            low, high = interval(found["any"], found["lives"])
            colour = "tab:blue" if detector.startswith("scan") else "0.45"
            axes.plot([low, high], [place + lift] * 2, color=colour, linewidth=1.2)
            label = cell_title(cell) if not place else None
            axes.plot(found["any"] / found["lives"], place + lift, marker, color=colour, markersize=4, label=label)
    for budget in (0.05, 0.10):
        axes.axvline(budget, color="tab:red", linewidth=0.7, linestyle=":")
    axes.set_yticks(range(len(detectors)), [NAMES.get(each, each) for each in detectors], fontsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(
        "share of lives with a false alarm while nothing changes; dotted: budgets of 0.05 and 0.10", fontsize=8
    )
    axes.legend(fontsize=7, loc="center right")
    _save(figure, path)


def detected_picture(cells: dict[str, Any], path: Path) -> None:
    """A row a change and cell, a dot a detector: how often it finds the change at equal real false alarms."""
    plot = _pyplot()
    rows = [(cell, change, found) for cell in CELLS for change, found in changes_of(cells, cell).items()]
    if not rows:
        return
    others = list(rows[0][2]["equal rate"])
    figure, axes = plot.subplots(figsize=(9.0, 0.24 * len(rows) + 1.4))
    markers = "sDv^<>P"
    for place, (_, _, found) in enumerate(reversed(rows)):
        for index, other in enumerate(others):
            label = other if not place else None
            share = detected(found["equal rate"][other])
            axes.plot(share, place, markers[index % 7], color=f"C{index + 1}", markersize=4, alpha=0.8, label=label)
        axes.plot(
            detected(found["comes"][SCAN]), place, "o", color="tab:blue", markersize=7, markerfacecolor="none",
            markeredgewidth=1.6, label="scan" if not place else None,
        )  # fmt: skip
    titles = [f"{change_title(change)} ({cell[0]}/{cell[1]})" for cell, change, _ in reversed(rows)]
    axes.set_yticks(range(len(rows)), titles, fontsize=7)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_xlabel(
        "share of lives in which the change is found, all at the same real rate of false alarms", fontsize=8
    )
    axes.legend(fontsize=7, loc="upper center", ncols=4, bbox_to_anchor=(0.4, 1.1))
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    # Text as text keeps the files small, and a fixed salt keeps them the same from run to run.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "softad"})
    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    _pyplot().close(figure)
