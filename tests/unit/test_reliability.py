"""Reliability bins, ECE and Brier score against their definitions, and the ECE of calibrated and other models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from softad.reliability import reliability


def calibrated(rows: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(classes, 0.7), rows)
    labels = (rng.random((rows, 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    return chances, labels


@given(st.integers(0, 10_000), st.integers(1, 120), st.integers(1, 20), st.sampled_from(["count", "width"]))
def test_bins_and_ece_are_their_definitions(seed: int, rows: int, bins: int, binning: str) -> None:
    chances, labels = calibrated(rows, seed)
    chances = chances.round(2)
    chances[:, 0] = 1.0 - chances[:, 1] - chances[:, 2]
    chances = np.abs(chances)
    found = reliability(chances, labels, bins, binning=binning, resamples=3)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    total, seen = 0.0, np.zeros(rows, dtype=int)
    for number, one in enumerate(found.bins):
        inside = (sure > one.low) & (sure <= one.high)
        if number == 0:
            inside |= sure == one.low
        seen += inside
        assert one.rows == inside.sum() > 0
        assert one.confidence == pytest.approx(sure[inside].mean())
        assert one.accuracy == pytest.approx(right[inside].mean())
        assert one.accuracy_low <= one.accuracy <= one.accuracy_high
        total += one.rows / rows * abs(one.accuracy - one.confidence)
    assert (seen == 1).all()
    assert len(found.bins) <= bins
    assert found.ece.value == pytest.approx(total)
    assert found.largest_gap == pytest.approx(max(abs(one.accuracy - one.confidence) for one in found.bins))
    assert 0.0 <= found.ece.low <= found.ece.value <= found.ece.high
    assert found.brier.value == pytest.approx(np.square(chances - np.eye(3)[labels]).sum(axis=1).mean())
    assert found.rows == rows


def test_bins_of_equal_count_and_of_equal_width() -> None:
    chances, labels = calibrated(3000, 0)
    counts = [one.rows for one in reliability(chances, labels, 10).bins]
    assert len(counts) == 10 and max(counts) - min(counts) <= 2
    wide = reliability(chances, labels, 10, binning="width").bins
    assert [round(one.high - one.low, 9) for one in wide] == [0.1] * len(wide)
    assert wide[0].low >= 0.3  # the most probable of three classes has more than a third: emptier bins are left out


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_class_of_interest_is_judged_as_one_event(seed: int, rows: int) -> None:
    chances, labels = calibrated(rows, seed)
    found = reliability(chances, labels, 5, interest=1, resamples=4)
    assert found == reliability(chances[:, 1], labels == 1, 5, resamples=4)
    assert found == reliability(chances[:, 1], (labels == 1).astype(int), 5, interest=1, resamples=4)
    assert found.brier.value == pytest.approx(brier_score_loss(labels == 1, chances[:, 1], labels=[False, True]))


def test_a_calibrated_model_has_the_ece_of_noise_and_an_overconfident_one_more() -> None:
    eces, lows, expected, spoiled = [], [], [], []
    for seed in range(30):
        chances, labels = calibrated(1000, seed)
        found = reliability(chances, labels, 15, resamples=100)
        eces.append(found.ece.value)
        lows.append(found.ece.low)
        expected.append(found.ece_if_calibrated)
        sharp = np.square(chances) / np.square(chances).sum(axis=1, keepdims=True)
        spoiled.append(reliability(sharp, labels, 15, resamples=100))
    assert np.mean(eces) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(lows) < 0.3 * np.mean(eces)  # resampling doubles the noise; the interval takes it off
    assert all(one.ece.low > 2 * one.ece_if_calibrated for one in spoiled)


def test_the_brier_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chances, labels = calibrated(400_000, 99)
    truth = reliability(chances, labels, resamples=1).brier.value
    hits = 0
    for seed in range(150):
        brier = reliability(*calibrated(300, seed), resamples=200, seed=seed).brier
        hits += brier.low <= truth <= brier.high
    assert hits / 150 >= 0.88


def test_the_seed_fixes_it_and_one_value_is_one_bin() -> None:
    chances, labels = calibrated(200, 0)
    assert reliability(chances, labels, seed=2) == reliability(chances, labels, seed=2)
    assert reliability(chances, labels, seed=2) != reliability(chances, labels, seed=3)
    for binning in ("count", "width"):
        (only,) = reliability([[1.0, 0.0]], [0], binning=binning).bins
        assert (only.rows, only.confidence, only.accuracy) == (1, 1.0, 1.0)
    (zero,) = reliability([0.0, 0.0], [0, 1], resamples=5).bins
    assert (zero.low, zero.rows, zero.accuracy) == (0.0, 2, 0.5)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: reliability([], []), "probabilities"),
        (lambda: reliability([[0.5, 0.6]], [0]), "probabilities: row 0"),
        (lambda: reliability([1.5], [0]), "probabilities"),
        (lambda: reliability([np.nan], [0]), "probabilities"),
        (lambda: reliability([0.5], [0, 1]), "labels"),
        (lambda: reliability([0.5], [2]), "labels"),
        (lambda: reliability([0.5], [0.5]), "labels"),
        (lambda: reliability([0.5], [0], 0), "bins"),
        (lambda: reliability([0.5], [0], binning="log"), "binning"),
        (lambda: reliability([0.5], [0], interest=0), "interest"),
        (lambda: reliability([[0.5, 0.5]], [0], interest=2), "interest"),
        (lambda: reliability([0.5], [0], resamples=0), "resamples"),
        (lambda: reliability([0.5], [0], seed=-1), "seed"),
        (lambda: reliability([0.5], [0], confidence=0.0), "confidence"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(call, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*; allowed: "):
        call()
