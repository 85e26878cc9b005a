"""The rule of shadow and probation: what is shown worse, and how rarely what is not worse is called so."""

from __future__ import annotations

import numpy as np

from flows.comparison import Comparison, Margins
from flows.watch_rule import watched_figures

MARGINS = Margins(resamples=400)


def pair(rng: np.random.Generator, rows: int, factor: float) -> Comparison:
    old = rng.gamma(0.5, 0.5, rows)
    return Comparison(old, old * factor * rng.lognormal(0.0, 0.2, rows))


def test_a_model_at_its_margins_is_rarely_called_worse() -> None:
    rng = np.random.default_rng(0)
    # The mean at its margin, tail and stability within theirs: each look of two may err in a fortieth of the cases.
    called = sum(
        any(one.worse for one in watched_figures(pair(rng, 600, 1.02 / np.exp(0.02)), MARGINS, looks=2, seed=number))
        for number in range(150)
    )
    assert called <= 7


def test_a_plainly_worse_model_is_found_with_few_rows() -> None:
    rng = np.random.default_rng(1)
    found = [watched_figures(pair(rng, 300, 1.6), MARGINS, looks=2, seed=number) for number in range(20)]
    assert all(one[0].worse for one in found)
    assert [one.name for one in found[0]] == ["mean", "tail", "stability"]


def test_defects_that_are_missed_more_are_found() -> None:
    rng = np.random.default_rng(2)
    defect = rng.random(2000) < 0.2
    score = np.where(defect, 0.9, 0.1) + rng.uniform(0, 0.05, 2000)
    other = np.where(defect & (rng.random(2000) < 0.15), 0.05, score)
    losses = np.full(2000, 0.1) * rng.lognormal(0.0, 0.1, 2000)
    comparison = Comparison(
        losses, losses, labels=np.where(defect, "defect", "ok"), classes=("ok", "defect"), normal="ok",
        champion_probabilities=np.stack([1 - score, score], axis=1),
        challenger_probabilities=np.stack([1 - other, other], axis=1),
    )  # fmt: skip
    figures = {one.name: one for one in watched_figures(comparison, MARGINS, looks=1)}
    assert figures["recall"].worse and 0.1 < figures["recall"].change < 0.2
    assert not figures["mean"].worse


def test_a_figure_that_grew_from_zero_is_worse_and_fits_the_ledger() -> None:
    figures = watched_figures(Comparison(np.zeros(300), np.full(300, 0.2)), MARGINS, looks=1)
    assert figures[0].worse and figures[0].document()["change"] is None
