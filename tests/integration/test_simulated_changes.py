"""A small network on the simulated line: what each change does to its losses, who is named, what retraining mends."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monitoring.attribution import attribute
from monitoring.scan_result import ScanResult
from monitoring.verdict import decide
from softad.bundle import ModelBundle, train_bundle
from softad.criteria import SoftAD
from softad.figures import cvar, loss_concentration
from softad.simulation import CATEGORICAL, CLASSES, NUMERIC, SLICES, Change, InspectionLine

SEED = 2


def rows(line: InspectionLine, first: int, last: int) -> pd.DataFrame:
    weeks = [line.week(number) for number in range(first, last + 1)]
    return pd.concat([week.inspections.merge(week.labels, on="id") for week in weeks], ignore_index=True)


def train(frame: pd.DataFrame) -> ModelBundle:
    validation = np.arange(len(frame)) % 5 == 0
    parts = frame[~validation], frame[validation]
    bundle, _ = train_bundle(
        parts[0], parts[0]["label"], parts[1], parts[1]["label"], task="classification", classes=CLASSES,
        numeric=NUMERIC, categorical=CATEGORICAL, criterion=SoftAD(0.05), epochs=12, patience=4, threads=1,
    )  # fmt: skip
    return bundle


def with_losses(bundle: ModelBundle, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(loss=bundle.row_losses(frame, frame["label"]))


@pytest.fixture(scope="module")
def champion() -> ModelBundle:
    return train(rows(InspectionLine(seed=SEED), -7, -3))


@pytest.fixture(scope="module")
def reference(champion: ModelBundle) -> pd.DataFrame:
    return with_losses(champion, rows(InspectionLine(seed=SEED), -2, 0))


def changed(champion: ModelBundle, change: Change) -> tuple[InspectionLine, pd.DataFrame]:
    line = InspectionLine(seed=SEED, change=change, change_week=1)
    return line, with_losses(champion, rows(line, 1, 1))


ALARM = ScanResult(True, "alarm", statistic=9.0, threshold=4.0, budget_spent=0.01, window="2026-W02", rows=2000)


def test_the_broken_machine_is_named_and_its_rows_can_be_learned(
    champion: ModelBundle, reference: pd.DataFrame
) -> None:
    line, window = changed(champion, "concentrated")
    found = attribute(window, reference, slices=SLICES)
    verdict = decide(ALARM, found)
    assert (verdict.kind, (verdict.column, verdict.value)) == ("inspect", line.changed)
    assert verdict.share is not None and verdict.share > 0.7
    challenger = train(rows(line, -4, 3))
    after = rows(line, 4, 6)
    old, new = (cvar(bundle.row_losses(after, after["label"]), 0.9) for bundle in (champion, challenger))
    assert new < 0.8 * old


def test_a_spread_change_names_nobody(champion: ModelBundle, reference: pd.DataFrame) -> None:
    _, window = changed(champion, "spread")
    assert cvar(window["loss"], 0.9) > 1.3 * cvar(reference["loss"], 0.9)
    verdict = decide(ALARM, attribute(window, reference, slices=SLICES))
    assert (verdict.kind, verdict.reason_key, verdict.value) == ("retrain", "spread", None)


def test_a_change_of_the_mean_leaves_the_concentration(champion: ModelBundle, reference: pd.DataFrame) -> None:
    line = InspectionLine(seed=SEED, change="mean", change_week=1)
    window = with_losses(champion, rows(line, 1, 3))
    assert window["loss"].mean() > 1.15 * reference["loss"].mean()
    before, after = (
        loss_concentration(frame["loss"], theta=0.1, sigma=0.4, resamples=100) for frame in (reference, window)
    )
    assert after.top_share.value == pytest.approx(before.top_share.value, abs=0.04)
    assert after.gini.value == pytest.approx(before.gini.value, abs=0.04)
    assert decide(ALARM, attribute(window, reference, slices=SLICES)).kind == "retrain"


def test_without_a_change_the_losses_of_a_week_are_those_of_the_reference(
    champion: ModelBundle, reference: pd.DataFrame
) -> None:
    window = with_losses(champion, rows(InspectionLine(seed=SEED), 1, 3))
    ranks = np.searchsorted(np.sort(reference["loss"]), window["loss"]) / len(reference)
    # Mean of 6,000 ranks against 6,000 reference rows: standard error 0.0053.
    assert ranks.mean() == pytest.approx(0.5, abs=0.02)
    assert (ranks > 0.9).mean() == pytest.approx(0.1, abs=0.022)
