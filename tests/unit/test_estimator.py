"""The scikit-learn estimators: what they learn, weights, warm retraining, bad input."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from softad.calibration import cross_entropies
from softad.criteria import CVaR, SoftAD
from softad.estimator import SoftADClassifier, SoftADRegressor
from softad.estimator_rows import Rows, held_out, in_order, repeated
from softad.training import TrainingDiverged

QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02, "hidden": (16,), "random_state": 0}


def two_classes(rows: int = 240, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)) * [1.0, 100.0, 0.01] + [0.0, 1e4, 0.0]
    return x, np.where(x[:, 0] + 100 * x[:, 2] + noise * rng.normal(size=rows) > 0, "good", "bad")


def curve(rows: int = 300, seed: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(rows, 1))
    return x, 5000.0 + 100.0 * (np.sin(2 * x[:, 0]) + noise * rng.normal(size=rows))


# --- what is learnt ---


@pytest.mark.parametrize(
    "parameters",
    [
        {"criterion": "softad"}, {"criterion": "softad", "theta": 0.1, "sigma": 0.5}, {"criterion": "mean"},
        {"criterion": "cvar", "level": 0.5}, {"criterion": "chi_square", "radius": 0.3}, {"criterion": "tilted"},
        {"criterion": "flooding", "theta": 0.05}, {"criterion": "iflood", "theta": 0.05},
        {"criterion": SoftAD(0.1, transform=CVaR(0.3))}, {"optimizer": "sgd"}, {"model": "linear"},
        {"class_weight": "balanced"},
    ],
)  # fmt: skip
def test_every_criterion_learns_two_classes(parameters: dict[str, Any]) -> None:
    x, y = two_classes()
    model = SoftADClassifier(**{**QUICK, **parameters}).fit(x, y)
    assert model.score(*two_classes(seed=1)) > 0.85


def test_string_labels_and_probabilities_in_the_order_of_the_classes() -> None:
    x, number = make_blobs(150, centers=3, random_state=0)
    y = np.array(["scratch", "dent", "none"])[number]
    model = SoftADClassifier(**QUICK).fit(x, y)
    assert model.classes_.tolist() == ["dent", "none", "scratch"]
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(x)).all()
    assert model.score(x, y) > 0.85
    true = probabilities[np.arange(150), np.searchsorted(model.classes_, y)]
    np.testing.assert_allclose(model.row_losses(x, y), -np.log(true), rtol=1e-6, atol=1e-12)
    figures = model.figures(x, y, level=0.8, slices={"class": y})
    assert figures.mean.value == pytest.approx(-np.log(true).mean())
    assert (figures.level, set(figures.slice_spread)) == (0.8, {"class"})


def test_a_pipeline_a_grid_over_theta_and_cross_validation() -> None:
    x, y = two_classes(150)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), SoftADClassifier(**{**QUICK, "epochs": 10})),
        {"softadclassifier__theta": [0.05, 30.0, "auto"]},
        cv=2, scoring="neg_log_loss",
    ).fit(x, y)  # fmt: skip
    assert grid.best_params_["softadclassifier__theta"] != 30.0  # pushes every loss up to 30
    assert grid.score(x, y) > -0.6
    scores = cross_val_score(SoftADRegressor(**QUICK), *curve(), cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.5


def test_pandas_in_and_names_kept() -> None:
    x, y = two_classes()
    frame, labels = pd.DataFrame(x, columns=["torque", "weight", "gap"]), pd.Series(y, index=range(500, 740))
    model = SoftADClassifier(**QUICK).fit(frame, labels, sample_weight=pd.Series(1.0, index=labels.index))
    assert model.feature_names_in_.tolist() == ["torque", "weight", "gap"]
    assert (model.predict(frame) == SoftADClassifier(**QUICK).fit(x, y).predict(x)).all()
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["gap", "torque", "weight"]])


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_a_quantile_covers_its_share_of_the_rows(quantile: float) -> None:
    x, y = curve(1200, noise=0.5)
    model = SoftADRegressor("mean", base_loss="quantile", quantile=quantile, **{**QUICK, "epochs": 60}).fit(x, y)
    held, true = curve(4000, seed=1, noise=0.5)
    assert (true < model.predict(held)).mean() == pytest.approx(quantile, abs=0.08)


@pytest.mark.parametrize("base_loss", ["squared", "absolute", "huber", "quantile"])
def test_row_losses_are_in_the_targets_unit(base_loss: str) -> None:
    x, y = curve()
    model = SoftADRegressor(base_loss=base_loss, quantile=0.3, **QUICK).fit(x, y)
    assert model.score(x, y) > 0.4
    error, knee = y - model.predict(x), model.target_scale_
    expected = {
        "squared": error**2,
        "absolute": abs(error),
        "huber": np.where(abs(error) < knee, error**2 / 2, knee * (abs(error) - knee / 2)),
        "quantile": np.where(error > 0, 0.3 * error, -0.7 * error),
    }[base_loss]
    np.testing.assert_allclose(model.row_losses(x, y), expected, rtol=1e-6, atol=1e-6)
    assert model.figures(x, y).mean.value == pytest.approx(expected.mean())


def test_a_target_in_other_units_gives_the_same_model() -> None:
    x, y = curve()
    one = SoftADRegressor(theta=0.1, **QUICK).fit(x, y)
    other = SoftADRegressor(theta=0.1, **QUICK).fit(x, y * 2.0**20)
    np.testing.assert_allclose(other.predict(x), one.predict(x) * 2.0**20, rtol=1e-9)


# --- validation share, calibration ---


def test_early_stopping_on_a_validation_share_and_none_for_few_rows() -> None:
    x, y = two_classes(400, noise=2.0)
    stopped = SoftADClassifier("mean", **{**QUICK, "epochs": 200, "patience": 4, "hidden": (64, 64)}).fit(x, y)
    assert 4 < stopped.n_iter_ == len(stopped.history_) < 200
    assert stopped.temperature_ != 1.0
    assert SoftADClassifier(calibrate=False, **QUICK).fit(x, y).temperature_ == 1.0
    few = SoftADClassifier(**QUICK).fit(x[:90], y[:90])
    assert [epoch.validation for epoch in few.history_] == [None] * 20
    assert few.temperature_ == 1.0


def test_a_temperature_does_not_sharpen_where_the_validation_rows_are_all_right() -> None:
    x, y = make_blobs(200, centers=[[-9.0, 0.0], [9.0, 0.0]], random_state=0)
    model = SoftADClassifier("mean", **QUICK).fit(x, y)
    assert model.score(x, y) == 1.0
    assert model.temperature_ == 1.0


def test_theta_is_the_one_in_use() -> None:
    x, y = two_classes()
    auto = SoftADClassifier(**QUICK).fit(x, y)
    lowest = min(epoch.validation for epoch in auto.history_)
    assert auto.theta_ == auto.criterion_.theta
    assert 0.0 < auto.theta_ < lowest
    assert SoftADClassifier(theta=0.3, **QUICK).fit(x, y).theta_ == 0.3
    assert SoftADClassifier("flooding", theta=0.2, **QUICK).fit(x, y).theta_ == 0.2
    assert SoftADClassifier("cvar", **QUICK).fit(x, y).theta_ is None


@given(
    labels=arrays(np.int64, st.integers(100, 200), elements=st.integers(0, 3)),
    fraction=st.floats(0.0, 0.99),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_the_validation_share_is_one_of_every_class(labels: np.ndarray, fraction: float, seed: int) -> None:
    mask = held_out(labels.size, fraction, seed, labels)
    for number, rows in zip(*np.unique(labels, return_counts=True), strict=True):
        taken = 0 if mask is None else int(mask[labels == number].sum())
        assert taken == min(round(fraction * rows), rows - 1)


# --- weights ---


@pytest.mark.parametrize("make", [SoftADClassifier, SoftADRegressor])
def test_a_weight_is_a_repetition_and_zero_is_no_row(make) -> None:
    x, y = two_classes(150) if make is SoftADClassifier else curve(150)
    weights = np.random.default_rng(0).integers(0, 4, 150)
    weighted = make(**QUICK).fit(x, y, sample_weight=weights)
    order = np.random.default_rng(1).permutation(int(weights.sum()))
    copies = make(**QUICK).fit(x.repeat(weights, axis=0)[order], y.repeat(weights)[order])
    other = make(**QUICK).fit(x, y)
    assert (weighted.row_losses(x, y) == copies.row_losses(x, y)).all()
    assert (weighted.row_losses(x, y) != other.row_losses(x, y)).any()


def test_fractional_weights_count_and_a_zero_among_them_is_no_row() -> None:
    rng = np.random.default_rng(0)
    x = np.ones((60, 1))
    y = np.arange(60) % 2
    model = SoftADClassifier("mean", model="linear", weight_decay=0.0, **{**QUICK, "epochs": 40, "learning_rate": 0.1})
    share = model.fit(x, y, sample_weight=np.where(y == 1, 1.5, 0.5)).predict_proba(x)[0, 1]
    assert share == pytest.approx(0.75, abs=0.05)
    x, y = two_classes(60)
    weights = rng.uniform(0.1, 5.0, 60)
    weights[:20] = 0.0
    whole, part = clone(model).fit(x, y, weights), clone(model).fit(x[20:], y[20:], weights[20:])
    assert (whole.predict_proba(x) == part.predict_proba(x)).all()


def test_weights_too_large_to_repeat_stay_weights() -> None:
    rows = repeated(np.zeros((3, 1)), np.arange(3), np.array([500.0, 0.0, 501.0]))
    assert rows.targets.tolist() == [0, 2]
    assert rows.weights.tolist() == [500.0, 501.0]
    assert repeated(np.zeros((3, 1)), np.arange(3), np.array([500.0, 0.0, 500.0])).targets.size == 1000


@given(arrays(np.float64, (12, 2), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5])), st.permutations(range(12)))
@settings(max_examples=40)
def test_the_order_of_the_rows_is_of_no_influence(x: np.ndarray, order: list[int]) -> None:
    y = np.arange(12) % 3
    one, other = in_order(Rows(x, y, None)), in_order(Rows(x[order], y[order], None))
    assert (one.features == other.features).all()
    assert (one.targets == other.targets).all()
    assert sorted(map(tuple, x)) == sorted(map(tuple, one.features))


def test_class_weights_by_label_raise_the_recall_of_a_rare_class() -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(500) < 0.08, "defect", "good")
    x = rng.normal(size=(500, 2)) + 1.2 * (y == "defect")[:, None]
    recalls = [
        (SoftADClassifier("mean", class_weight=weight, **QUICK).fit(x, y).predict(x)[y == "defect"] == "defect").mean()
        for weight in (None, "balanced", {"defect": 30.0})
    ]
    assert recalls[0] < 0.6 < min(recalls[1:])


# --- warm retraining ---


def test_partial_fit_learns_a_shift_keeps_the_classes_and_the_scaling() -> None:
    x, number = make_blobs(300, centers=3, random_state=1, cluster_std=1.0)
    y = np.array(["a", "b", "c"])[number]
    model = SoftADClassifier("mean", partial_epochs=10, **QUICK).fit(x, y)
    kept = y != "c"
    shifted, labels = x[kept] + [2.0, 3.0], y[kept]
    before, means = model.row_losses(shifted, labels).mean(), model.scaler_.mean_.copy()
    epochs = model.n_iter_
    again = copy.deepcopy(model)
    assert model.partial_fit(shifted, labels) is model
    assert model.row_losses(shifted, labels).mean() < 0.7 * before
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (model.scaler_.mean_ == means).all()
    assert epochs < model.n_iter_ == len(model.history_) <= epochs + 10
    # The same batch again gives the same bits; another draw of batches follows in the next call.
    assert (again.partial_fit(shifted, labels).predict_proba(x) == model.predict_proba(x)).all()
    diverging = copy.deepcopy(model).set_params(learning_rate=1e30)
    with pytest.raises(TrainingDiverged):
        diverging.partial_fit(x, y)
    assert (diverging.predict_proba(x) == model.predict_proba(x)).all()
    with pytest.raises(ValueError, match="y: 'd' is not among the classes; allowed: \\['a', 'b', 'c'\\]"):
        model.partial_fit(x, np.where(y == "a", "d", y))


def test_partial_fit_from_nothing_knows_classes_that_come_later() -> None:
    x, number = make_blobs(300, centers=3, random_state=1)
    model = SoftADClassifier("mean", **{**QUICK, "partial_epochs": 15})
    model.partial_fit(x[number < 2], number[number < 2], classes=[0, 1, 2])
    assert model.predict_proba(x).shape == (300, 3)
    for _ in range(3):
        model.partial_fit(x, number, sample_weight=np.ones(300))
    assert model.score(x, number) > 0.85
    regressor = SoftADRegressor(**{**QUICK, "partial_epochs": 15})
    for _ in range(3):
        regressor.partial_fit(*curve())
    assert regressor.score(*curve()) > 0.5


def test_warm_start_goes_on_and_a_plain_fit_begins_anew() -> None:
    x, y = two_classes(90)
    model = SoftADClassifier(**QUICK).fit(x, y)
    first = model.predict_proba(x)
    assert (model.fit(x, y).predict_proba(x) == first).all()
    model.set_params(warm_start=True).fit(x, y)
    assert model.n_iter_ == 40
    assert model.row_losses(x, y).mean() < -np.log(first.max(axis=1)).mean() + 0.1
    assert (model.predict_proba(x) != first).any()


# --- chance, copies ---


def test_the_random_state_fixes_the_model_and_nothing_global_moves() -> None:
    x, y = two_classes()
    torch.manual_seed(5)
    np.random.seed(5)
    chance, threads, drawn = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].copy()
    one = SoftADClassifier(**QUICK).fit(x, y)
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.get_num_threads() == threads
    assert (np.random.get_state()[1] == drawn).all()
    torch.manual_seed(6)
    other, third = SoftADClassifier(**QUICK).fit(x, y), SoftADClassifier(**{**QUICK, "random_state": 1}).fit(x, y)
    assert (one.predict_proba(x) == other.predict_proba(x)).all()
    assert (one.predict_proba(x) != third.predict_proba(x)).any()


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_pickled_model_predicts_and_trains_on_the_same(way: str, tmp_path) -> None:
    x, y = two_classes()
    model = SoftADClassifier(**QUICK).fit(x, y)
    if way == "pickle":
        back = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, tmp_path / "model.joblib")
        back = joblib.load(tmp_path / "model.joblib")
    assert (back.predict_proba(x) == model.predict_proba(x)).all()
    assert back.theta_ == model.theta_
    assert (back.partial_fit(x, y).predict_proba(x) == model.partial_fit(x, y).predict_proba(x)).all()


def test_clone_and_set_params_and_a_criterion_that_is_not_touched() -> None:
    criterion = SoftAD("auto")
    model = SoftADClassifier(criterion, **QUICK)
    assert clone(model).get_params() == model.get_params()
    x, y = two_classes()
    model.fit(x, y)
    assert criterion.state() == {}
    assert model.theta_ is not None
    with pytest.raises(NotFittedError):
        clone(model).predict(x)
    model.set_params(learning_rate=1e30)
    with pytest.raises(TrainingDiverged):
        model.fit(x, y)
    with pytest.raises(NotFittedError):
        model.predict(x)
    model.set_params(learning_rate=0.02)
    assert isinstance(model.set_params(criterion="cvar", level=0.5).fit(x, y).criterion_, CVaR)


def test_a_row_does_not_depend_on_the_rows_beside_it_and_logits_are_the_networks() -> None:
    x, y = two_classes()
    model = SoftADClassifier(calibrate=False, **QUICK).fit(x, y)
    one_by_one = np.concatenate([model.predict_proba(x[[row]]) for row in range(50)])
    np.testing.assert_allclose(one_by_one, model.predict_proba(x[:50]), rtol=1e-12)
    scaled = torch.tensor(model.scaler_.transform(x), dtype=torch.float32)
    with torch.no_grad():
        logits = model.model_(scaled).numpy()
    losses = cross_entropies(logits, (y == "good").astype(int))
    np.testing.assert_allclose(model.row_losses(x, y), losses, rtol=1e-3, atol=1e-5)


# --- bad input ---


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"level": -0.1}, r"level: -0.1; allowed: \[0, 1\)"),
        ({"level": 1.0}, r"level: 1.0; allowed: \[0, 1\)"),
        ({"radius": -1.0}, r"radius: -1.0; allowed: \[0, inf\)"),
        ({"sigma": 0.0}, r"sigma: 0.0; allowed: .*\(0, inf\)"),
        ({"theta": "low"}, "theta: 'low'; allowed: \"auto\" or a finite number"),
        ({"theta": float("nan")}, "theta: nan; allowed"),
        ({"criterion": "iflood"}, "theta: 'auto' with criterion 'iflood'; allowed: a finite number"),
        ({"criterion": "erm"}, "criterion: 'erm'; allowed: softad, mean, "),
        ({"batch_size": "large"}, "batch_size: 'large'; allowed"),
        ({"patience": 0}, "patience: 0; allowed: 1 or more, or None"),
        ({"epochs": 0}, "epochs: 0; allowed: 1 or more"),
        ({"validation_fraction": 1.0}, r"validation_fraction: 1.0; allowed: \[0, 1\)"),
        ({"model": "forest"}, "name: 'forest'; allowed: "),
        ({"base_loss": "cubic"}, "base_loss: 'cubic'; allowed: squared, absolute, huber, quantile"),
        ({"quantile": 1.0}, r"quantile: 1.0; allowed: \(0, 1\)"),
    ],
)
def test_parameters_out_of_range_are_named(parameters: dict[str, Any], sentence: str) -> None:
    make = SoftADRegressor if {"base_loss", "quantile"} & set(parameters) else SoftADClassifier
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make(**{**QUICK, **parameters}).fit(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)


def test_rows_that_cannot_be_learnt_from_are_named() -> None:
    x, y = two_classes(30)
    with pytest.raises(ValueError, match="y: only one class, 'a'; allowed: at least two classes"):
        SoftADClassifier().fit(x, ["a"] * 30)
    with pytest.raises(ValueError, match="y: only one class, 'good'; allowed: at least two classes"):
        SoftADClassifier(class_weight={"bad": 0.0}).fit(x, y)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        SoftADClassifier().fit(np.where(x == x[3, 1], np.inf, x), y)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        SoftADRegressor().fit(x, np.full(30, np.nan))
    with pytest.raises(ValueError, match=r"sample_weight: -1\.0; allowed: finite, 0 or more"):
        SoftADClassifier().fit(x, y, sample_weight=np.full(30, -1.0))
    with pytest.raises(ValueError, match="y: 'new' is not among the classes; allowed: "):
        SoftADClassifier(**QUICK).fit(x, y).row_losses(x, ["new"] * 30)


def test_verbose_prints_a_line_an_epoch(capsys) -> None:
    SoftADClassifier(**{**QUICK, "epochs": 2, "verbose": 1}).fit(*two_classes())
    assert capsys.readouterr().out.splitlines()[1].startswith("epoch 2 of 2: objective ")
