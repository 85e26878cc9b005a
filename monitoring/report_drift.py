"""A feature against the reference's: Evidently's `ValueDrift` by the same test, with one picture instead of two.

Evidently draws a feature's two histograms, and its average along the order of the rows, which in a sample means
nothing. Drawing takes four times as long as the comparison, for every feature of every window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from evidently import Dataset
from evidently.core.metric_types import SingleValue, SingleValueCalculation
from evidently.core.report import Context
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType
from evidently.metrics import ValueDrift

from monitoring.report_widgets import counters, share_bars

BINS = 24
"""Bars of the picture of a number's distribution."""

LARGEST_BARS = 20
"""Categories beyond the most frequent ones are left out of the picture, never of the comparison."""


class FeatureDrift(ValueDrift):  # type: ignore[misc]
    """How far a feature has moved from the reference's, as `evidently.metrics.ValueDrift` measures it.

    Parameters
    ----------
    column: its name, a number or a category in both data sets.
    method: of Evidently, for example "psi".
    threshold: above it the feature counts as drifted.

    >>> from evidently import DataDefinition, Report
    >>> frames = (pd.DataFrame({"x": np.arange(200.0) + shift}) for shift in (50.0, 0.0))
    >>> rows = [Dataset.from_pandas(each, DataDefinition(numerical_columns=["x"])) for each in frames]
    >>> ours, theirs = (Report([kind(column="x", method="psi", threshold=0.1)]).run(*rows).dict()["metrics"][0]
    ...                 for kind in (FeatureDrift, ValueDrift))
    >>> bool(ours["value"] == theirs["value"] > 0.1)
    True
    >>> ours["config"]["type"], theirs["config"]["type"]
    ('evidently:metric_v2:FeatureDrift', 'evidently:metric_v2:ValueDrift')
    """


class FeatureDriftCalculation(SingleValueCalculation[FeatureDrift]):  # type: ignore[misc]
    """Compares one column of two data sets."""

    def display_name(self) -> str:
        """The metric's title in a report."""
        return f"Drift of {self.metric.column}"

    def calculate(self, _context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The distance and its picture. Raises ValueError without a reference or without values."""
        name, limit = self.metric.column, self.metric.threshold
        if reference_data is None:
            raise ValueError(f"{name}: there is no reference to compare with")
        kind = current_data.column(name).type
        now, then = (_clean(each.as_dataframe()[name]) for each in (current_data, reference_data))
        if now.empty or then.empty:
            raise ValueError(f"{name}: the {'window' if now.empty else 'reference'} has no values")
        test = get_stattest(then, now, kind, self.metric.method)
        found = test(reference_data=then, current_data=now, feature_type=kind, threshold=limit)
        score = float(found.drift_score)
        value = self.result(score)
        state = "drifted" if found.drifted else "not drifted"
        said = f"{test.display_name} {score:.3f}, threshold {found.actual_threshold:.3f}"
        value.widget = [counters("", {said: f"{name}: {state}"}), _picture(name, kind, now, then)]
        return value


def _clean(column: pd.Series) -> pd.Series:
    return column.replace([-np.inf, np.inf], np.nan).dropna()


def _picture(name: str, kind: ColumnType, now: pd.Series, then: pd.Series) -> Any:
    """Shares of the rows by range or category, both data sets side by side."""
    if kind == ColumnType.Numerical:
        edges = np.histogram_bin_edges(np.concatenate([now.to_numpy(float), then.to_numpy(float)]), bins=BINS)
        heights = [np.histogram(each, bins=edges)[0] / len(each) for each in (now, then)]
        return share_bars(name, (edges[:-1] + edges[1:]) / 2, *heights)
    counts = [each.value_counts(normalize=True) for each in (now, then)]
    names = sorted(pd.concat(counts).sort_values(ascending=False).index.unique()[:LARGEST_BARS], key=str)
    return share_bars(name, [str(each) for each in names], *(each.reindex(names, fill_value=0.0) for each in counts))
