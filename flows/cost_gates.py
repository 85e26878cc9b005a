"""What a model is where it runs: the time for one part, its size, whether it can leave as a file. No comparisons."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.comparison import Gate
from flows.errors import Unavailable
from flows.export import CHECKED_ROWS, Agreement, export_agrees
from flows.settings import Promotion

if TYPE_CHECKING:
    import pandas as pd

    from softad.bundle import ModelBundle

_TIMES = 20


def cost_gates(
    bundle: ModelBundle, frame: pd.DataFrame, rules: Promotion, images: Callable[[str], bytes] | None = None
) -> tuple[Gate, ...]:
    """The gates on time, size and export; none for a limit that is null.

    Parameters
    ----------
    frame: held-out rows; the first of them is judged alone, as at the line.
    """
    gates = []
    if rules.row_ms is not None and len(frame):
        taken = row_milliseconds(bundle, frame.iloc[:1], images)
        reason = (
            f"one part alone takes {taken:.2g} ms of the processor (the best of {_TIMES}); allowed: {rules.row_ms:g} ms"
        )
        gates.append(Gate("latency", taken, None, None, rules.row_ms, taken <= rules.row_ms, reason, rows=1))
    if rules.size_mb is not None:
        size = megabytes(bundle)
        reason = f"its weights take {size:.3g} MB; allowed: {rules.size_mb:g} MB"
        gates.append(Gate("size", size, None, None, rules.size_mb, size <= rules.size_mb, reason))
    if rules.export_tolerance is not None and len(frame):
        gates.append(export_gate(bundle, frame.head(CHECKED_ROWS), rules, images))
    return tuple(gates)


def export_gate(
    bundle: ModelBundle, frame: pd.DataFrame, rules: Promotion, images: Callable[[str], bytes] | None = None
) -> Gate:
    """Whether the exported model answers as the trained one does, on held-out rows.

    A model that cannot be exported, a network of the plant's own with operations that ONNX lacks, runs in the pipeline
    all the same: then this is reported only, unless `promotion.export_required` asks for the export.

    >>> import pandas as pd
    >>> from softad.bundle import train_bundle
    >>> frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    >>> bundle, _ = train_bundle(frame, ["ok", "ok", "bad", "bad"], frame, ["ok", "ok", "bad", "bad"],
    ...     task="classification", classes=["ok", "bad"], numeric=["x"], categorical=[], model="linear", epochs=2)
    >>> gate = export_gate(bundle, frame, Promotion())
    >>> gate.passed, gate.gated, gate.margin, gate.rows
    (True, True, 1e-05, 4)
    """
    tolerance = rules.export_tolerance
    if tolerance is None:
        raise ValueError("export_tolerance: None; allowed: a number, where the export is looked at")
    try:
        found = export_agrees(bundle, frame, images, tolerance=tolerance)
    except Unavailable as error:
        found = Agreement(0, None, tolerance, None, str(error))
    if found.difference is None:
        asked = "; promotion.export_required asks for it" if rules.export_required else "; reported only"
        return Gate(
            "export", None, None, None, tolerance, not rules.export_required, found.reason + asked,
            gated=rules.export_required, rows=found.rows,
        )  # fmt: skip
    return Gate("export", found.difference, None, None, tolerance, found.agrees, found.reason, rows=found.rows)


def row_milliseconds(bundle: ModelBundle, row: pd.DataFrame, images: Callable[[str], bytes] | None = None) -> float:
    """The processor's time for one row, from its columns to the answer: the best of twenty.

    Not the time on the clock: a model must not be refused because other programs use the machine at that moment.
    """
    times = []
    for _ in range(_TIMES):
        begun = time.process_time()
        bundle.predict(row, images)
        times.append(time.process_time() - begun)
    return 1000 * min(times)


def megabytes(bundle: ModelBundle) -> float:
    """Size of the weights."""
    tensors = bundle.model.state_dict().values()
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) / 1e6
