"""Row losses from predictions and labels: values, the join on both sides, the label's age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from monitoring.losses import join_labels, regression_losses, row_losses

START = datetime(2026, 1, 5, tzinfo=UTC)


def test_the_log_loss_is_that_of_the_true_class() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=50).astype(np.float32)
    labels = np.random.default_rng(1).choice(["a", "b", "c"], size=50)
    losses = row_losses(labels, classes=["a", "b", "c"], probabilities=probabilities)
    expected = [-np.log(probabilities[row, "abc".index(label)]) for row, label in enumerate(labels)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses.dtype == np.float64


def test_certain_errors_are_bounded_and_certain_hits_cost_nothing() -> None:
    losses = row_losses(["a", "b"], classes=["a", "b"], probabilities=[[1.0, 0.0], [1.0, 0.0]], floor=1e-3)
    np.testing.assert_allclose(losses, [0.0, -np.log(1e-3)])
    assert not np.signbit(losses[0])
    assert row_losses([], classes=["a", "b"], probabilities=np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "probabilities", "sentence"),
    [
        (["a", "x"], [[0.5, 0.5]] * 2, r"row 2 is 'x'; known are a, b"),
        (["a"], [[0.5, 0.4]], r"row 1 is \[0.5, 0.4\]; it must sum to 1"),
        (["a", "a"], [[0.5, 0.5], [np.nan, 0.5]], "row 2"),
        (["a"], [[1.5, -0.5]], "row 1"),
        (["a"], [[0.2, 0.3, 0.5]], r"shape \(1, 3\); they must be \(1, 2\)"),
        (["a", "b"], [[0.5, 0.5]], r"they must be \(2, 2\)"),
    ],
)
def test_what_is_no_prediction_is_named(labels: list[str], probabilities: list[list[float]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        row_losses(labels, classes=["a", "b"], probabilities=probabilities)


def test_the_squared_error_is_free_of_units() -> None:
    millimetres = regression_losses([1.0, 2.0], [1.5, 2.0], scale=0.5)
    micrometres = regression_losses([1000.0, 2000.0], [1500.0, 2000.0], scale=500.0)
    np.testing.assert_allclose(millimetres, [1.0, 0.0])
    np.testing.assert_allclose(millimetres, micrometres)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="scale is"):
            regression_losses([1.0], [1.0], scale=wrong)
    with pytest.raises(ValueError, match="row 2: label nan"):
        regression_losses([1.0, np.nan], [1.0, 1.0], scale=1.0)
    with pytest.raises(ValueError, match=r"both must be \(n,\)"):
        regression_losses([1.0, 2.0], [1.0], scale=1.0)


def _predictions(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"_id": ["a", "b", "c"], "_version": 1, "at": START, "model_version": "3"})
    return frame.assign(_time=[START, START, START + timedelta(days=1)], **columns)


def _labels(rows: list[tuple[str, str, int, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["_id", "label", "_version", "days"])
    frame["_time"] = pd.to_datetime([START + timedelta(days=each) for each in frame.pop("days")], utc=True)
    return frame.assign(inspector="x")


def test_both_sides_are_counted() -> None:
    labels = _labels([("a", "ok", 1, 1), ("z", "ok", 1, 1), ("y", "bad", 1, 1), ("y", "ok", 2, 2), ("b", "bad", 1, 2)])
    joined = join_labels(_predictions(), labels)
    assert joined.rows["_id"].tolist() == ["a", "b"]
    assert joined.rows["label"].tolist() == ["ok", "bad"]
    assert (joined.without_label, joined.too_late, joined.without_prediction) == (1, 0, 2)
    assert joined.rows["_time"].tolist() == [START, START]  # of the inspection, not of the label
    assert "labelled_at" in joined.rows and "loss" not in joined.rows


def test_a_label_that_came_after_the_cut_off_does_not_count() -> None:
    labels = _labels([("a", "ok", 1, 1), ("a", "bad", 2, 5), ("b", "bad", 1, 5), ("c", "ok", 1, 2)])
    joined = join_labels(_predictions(), labels, before=START + timedelta(days=3))
    assert joined.rows.set_index("_id")["label"].to_dict() == {"a": "ok", "c": "ok"}
    assert (joined.without_label, joined.too_late) == (1, 1)
    late = join_labels(_predictions(), labels)
    assert late.rows.set_index("_id")["label"].to_dict() == {"a": "bad", "b": "bad", "c": "ok"}


def test_the_age_of_a_label_counts_from_its_own_row() -> None:
    labels = _labels([("a", "ok", 1, 2.5), ("c", "ok", 1, 2.5), ("z", "ok", 1, 9)])
    joined = join_labels(_predictions(), labels, within=timedelta(days=2))
    assert joined.rows["_id"].tolist() == ["c"]  # inspected a day later, so its label is a day and a half old
    assert (joined.without_label, joined.too_late, joined.without_prediction) == (2, 1, 1)


def test_the_newest_version_of_a_prediction_is_joined_once() -> None:
    twice = pd.concat(
        [
            _predictions(value=[1.0, 2.0, 3.0]),
            _predictions(value=[9.0, 8.0, 7.0]).assign(_version=2, at=START + timedelta(days=1)),
        ],
        ignore_index=True,
    )
    labels = _labels([("a", "10", 1, 1)]).assign(label_value=[10.0])
    joined = join_labels(twice, labels, scale=2.0)
    assert joined.rows[["_id", "value", "loss"]].values.tolist() == [["a", 9.0, 0.25]]
    assert joined.without_label == 2


def test_the_log_loss_comes_with_the_join() -> None:
    predictions = _predictions(probabilities=[np.array([0.9, 0.1], dtype=np.float32)] * 3)
    labels = _labels([("a", "ok", 1, 1), ("b", "bad", 1, 1)])
    joined = join_labels(predictions, labels, classes=["ok", "bad"])
    np.testing.assert_allclose(joined.rows["loss"], -np.log([0.9, 0.1]), rtol=1e-6)
    nothing = join_labels(predictions, labels[:0], classes=["ok", "bad"])
    assert (len(nothing.rows), nothing.without_label) == (0, 3)
    assert "loss" in nothing.rows


def test_missing_columns_and_two_losses_are_refused() -> None:
    labels = _labels([("a", "ok", 1, 1)])
    with pytest.raises(ValueError, match="labels lack the column _time"):
        join_labels(_predictions(), labels.drop(columns="_time"))
    with pytest.raises(ValueError, match="predictions lack the column probabilities"):
        join_labels(_predictions(), labels, classes=["ok"])
    with pytest.raises(ValueError, match="not both"):
        join_labels(_predictions(), labels, classes=["ok"], scale=1.0)
