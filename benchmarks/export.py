"""The exported model under onnxruntime against torch, from columns to calibrated answers, on two threads of the CPU."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from softad.bundle import ModelBundle, train_bundle
from softad.export import OnnxModel, largest_difference, raw_inputs, to_onnx

RESULTS = Path(__file__).parent / "results"
ROWS, COLUMNS, THREADS, REPEATS, SINGLE = 100_000, 30, 2, 7, 300


def main() -> int:
    """Measure, print, write."""
    torch.set_num_threads(THREADS)
    bundle, frame = _bundle()
    exported = OnnxModel(to_onnx(bundle), threads=THREADS)
    one = raw_inputs(bundle, frame.head(1))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(REPEATS):  # by turns, so that another program on the machine slows both alike
        ours.append(_seconds(lambda: bundle.predictions_of(bundle.outputs(frame), [])))
        theirs.append(_seconds(lambda: exported.run(raw_inputs(bundle, frame))))
    single = [_seconds(lambda: exported.run(one)) for _ in range(SINGLE)]
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    measured: list[tuple[str, float, float | None]] = [
        (f"torch, {ROWS:,} rows x {COLUMNS} columns (s)", statistics.median(ours), None),
        (f"onnxruntime, {ROWS:,} rows x {COLUMNS} columns (s)", statistics.median(theirs), None),
        ("onnxruntime over torch, median of the ratios", ratio, 1.0),
        ("onnxruntime, one row, median (ms)", statistics.median(single) * 1e3, 1.0),
        ("largest difference of a probability", largest_difference(bundle, exported, frame.head(20_000)), 1e-5),
    ]
    table = Table("what", "reached", "at most", "", title=f"The exported model, {THREADS} threads")
    for name, reached, most in measured:
        said = "" if most is None else "yes" if reached <= most else "NO"
        table.add_row(name, f"{reached:.3g}", "" if most is None else f"{most:g}", said)
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = [{"what": name, "reached": reached, "at_most": most} for name, reached, most in measured]
    (RESULTS / "export.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(most is None or reached <= most for _, reached, most in measured) else 1


def _bundle() -> tuple[ModelBundle, pd.DataFrame]:
    """The default network, hardly trained (its speed does not depend on its weights), and rows to score."""
    rng = np.random.default_rng(0)
    names = [f"x{number}" for number in range(COLUMNS)]
    frame = pd.DataFrame(rng.normal(size=(ROWS, COLUMNS)), columns=names)
    frame = frame.mask(rng.random(frame.shape) < 0.01)
    few = frame.head(2_000)
    labels = np.where(few["x0"].fillna(0.0) + rng.normal(size=len(few)) > 1.0, "bad", "ok").tolist()
    bundle, _ = train_bundle(
        few, labels, few, labels, task="classification", classes=["ok", "bad"], numeric=names, categorical=[],
        model="mlp", hidden=[64, 64], epochs=2,
    )  # fmt: skip
    return bundle, frame


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
