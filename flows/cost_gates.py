"""What a model costs where it runs: the time for one part, and its size. Limits, not comparisons."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.comparison import Gate
from flows.settings import Promotion

if TYPE_CHECKING:
    import pandas as pd

    from softad.bundle import ModelBundle

_TIMES = 20


def cost_gates(
    bundle: ModelBundle, frame: pd.DataFrame, rules: Promotion, images: Callable[[str], bytes] | None = None
) -> tuple[Gate, ...]:
    """The gates on time and size; none for a limit that is null.

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
    return tuple(gates)


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
