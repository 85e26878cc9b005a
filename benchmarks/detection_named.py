"""Which machine is named: one of twenty has its losses raised, or all have."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.detection_cells import Size
from monitoring.attribution import attribute

MACHINES = np.array([f"M{number:02d}" for number in range(1, 21)])
REFERENCE = 2_000
RAISED = 6
"""The machine whose losses are raised, by its place."""

CASES = ((3.0, 500, False), (1.5, 500, False), (1.5, 1_000, False), (1.5, 2_000, False), (3.0, 500, True),
         (1.5, 500, True))  # fmt: skip
"""Factor, rows of the window, and whether all machines are raised alike."""

Array = npt.NDArray[np.float64]


def which_is_named(factor: float, rows: int, everywhere: bool, size: Size) -> dict[str, Any]:
    """How often the raised machine comes first, by ours and by a judge who knows the law and the factor.

    Losses are log-normal(0, 1) and rows fall on the machines at random, so that one has ``rows / 20`` on average. The
    judge takes the machine with the largest likelihood ratio: with nothing known of which machine it is, no other rule
    is right more often.
    """
    first = significant = judged = 0
    for trial in range(size.named):
        rng = np.random.default_rng([7, trial])
        before, machine = np.exp(rng.normal(size=REFERENCE)), rng.integers(0, 20, REFERENCE)
        reference = pd.DataFrame({"machine": MACHINES[machine], "loss": before})
        losses, machine = np.exp(rng.normal(size=rows)), rng.integers(0, 20, rows)
        losses[everywhere | (machine == RAISED)] *= factor
        window = pd.DataFrame({"machine": MACHINES[machine], "loss": losses})
        findings = attribute(window, reference, slices=["machine"], resamples=100, seed=trial).findings
        first += findings[0].value == MACHINES[RAISED]
        significant += any(finding.significant for finding in findings)
        judged += int(likelihood(losses, machine, factor).argmax()) == RAISED
    return {"trials": size.named, "first": first, "significant": significant, "judge": judged}


def likelihood(losses: Array, machine: npt.NDArray[np.int64], factor: float) -> Array:
    """Logarithm of the likelihood ratio of each machine's rows being raised by the factor, shape ``(20,)``."""
    shift = np.log(factor)
    sums = np.bincount(machine, np.log(losses), minlength=20)
    counts = np.bincount(machine, minlength=20)
    return np.asarray(shift * sums - counts * shift**2 / 2)
