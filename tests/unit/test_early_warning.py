"""Early signs without labels: found where they should be, silent where nothing changed, and honest when counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monitoring.early_warning import expected_by_value, expected_loss, track_record, warn_early


def rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    frame = pd.DataFrame({f"x{number}": rng.normal(size=count) for number in range(8)})
    frame["machine"] = rng.choice(["A", "B", "C"], count)
    return frame


def probabilities(rng: np.random.Generator, count: int, harder: float = 0.0) -> np.ndarray:
    sure = 1 / (1 + np.exp(-rng.normal(3 - harder, 1, count)))
    return np.column_stack([sure, 1 - sure])


def look(rng: np.random.Generator, current: pd.DataFrame, reference: pd.DataFrame, harder: float = 0.0):  # type: ignore[no-untyped-def]
    now, then = probabilities(rng, len(current), harder), probabilities(rng, len(reference))
    return warn_early(
        current, reference, numeric=[f"x{number}" for number in range(8)], categorical=["machine"],
        predicted=(expected_loss(now), expected_loss(then)), confidence=(now.max(axis=1), then.max(axis=1)),
    )  # fmt: skip


def test_unchanged_windows_hardly_ever_show_a_sign() -> None:
    shown = 0
    for trial in range(300):
        rng = np.random.default_rng([1, trial])
        shown += look(rng, rows(rng, 400), rows(rng, 1000)).warns
    assert shown <= 9, "at most one in a hundred, 300 trials: 9 is beyond three standard errors"


def test_a_model_that_grows_unsure_is_seen() -> None:
    rng = np.random.default_rng(2)
    warning = look(rng, rows(rng, 400), rows(rng, 1000), harder=1.0)
    assert {sign.kind for sign in warning.signs if sign.shown} == {"predicted_loss", "confidence"}
    assert warning.predicted_loss is not None and warning.predicted_loss > 1.1 * (warning.reference_loss or 0)
    assert not look(rng, rows(rng, 400), rows(rng, 1000), harder=-1.0).warns, "a model that grows surer is no sign"


def test_a_feature_that_moves_falls_silent_or_changes_its_mix_is_named() -> None:
    rng = np.random.default_rng(3)
    reference = rows(rng, 1000)
    moved, silent, mixed = rows(rng, 400), rows(rng, 400), rows(rng, 400)
    moved["x3"] += 0.6
    silent.loc[:80, "x5"] = np.nan
    mixed["machine"] = rng.choice(["A", "B", "D"], 400)
    for frame, name in ((moved, "x3"), (silent, "x5"), (mixed, "machine")):
        signs = [sign for sign in look(rng, frame, reference).signs if sign.shown]
        assert [(sign.kind, sign.column) for sign in signs] == [("feature", name)]


def test_a_trifle_on_many_rows_is_no_sign() -> None:
    rng = np.random.default_rng(4)
    current, reference = rows(rng, 100_000), rows(rng, 100_000)
    current["x3"] += 0.05
    warning = look(rng, current, reference, harder=0.02)
    assert min(sign.p_value for sign in warning.signs) < 1e-6
    assert not warning.warns


def test_columns_of_text_gaps_and_ten_thousand_values_do_no_harm() -> None:
    rng = np.random.default_rng(5)
    current, reference = rows(rng, 3000), rows(rng, 3000)
    for frame in (current, reference):
        frame["batch"] = rng.integers(0, 10_000, 3000).astype(str)
        frame["empty"] = None
        frame["x0"] = frame["x0"].astype(object).where(frame.index % 7 > 0, "broken")
    warning = warn_early(current, reference, numeric=["x0", "gone"], categorical=["batch", "empty", "machine"])
    assert {sign.column for sign in warning.signs} == {"x0", "batch", "empty", "machine"}
    assert not warning.warns and warning.predicted_loss is None


def test_the_expected_loss_is_right_for_a_calibrated_model_and_for_bins_of_the_value() -> None:
    rng = np.random.default_rng(6)
    said = probabilities(rng, 200_000)
    true = (rng.random(200_000) > said[:, 0]).astype(int)
    losses = -np.log(said[np.arange(len(true)), true])
    assert expected_loss(said).mean() == pytest.approx(losses.mean(), rel=0.02)
    values = rng.uniform(0, 10, 5000)
    expected = expected_by_value([1.0, 9.5], values, values**2 + rng.exponential(size=5000))
    assert expected[0] < 4 and expected[1] > 85


def test_counting_and_wrong_arguments() -> None:
    empty = track_record([])
    assert (empty.windows, empty.agreed) == (0, 0)
    one = track_record([(True, True)] * 2 + [(True, False)] + [(False, False)] * 4 + [(False, True)])
    assert (one.windows, one.warned, one.right, one.changed, one.missed, one.agreed) == (8, 3, 2, 3, 1, 6)
    frame = pd.DataFrame({"x": [1.0]})
    with pytest.raises(ValueError, match="current has no rows"):
        warn_early(frame[:0], frame)
    with pytest.raises(ValueError, match="false_rate is 1"):
        warn_early(frame, frame, false_rate=1.0)
