"""Candidates of a retraining, without tables or registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from flows import candidates as module
from flows.candidates import choose, fit_candidates, prepare_rows, processes
from flows.settings import Settings, explain
from softad.criteria import AUTO_SHARE

CONFIG: dict[str, Any] = {
    "name": "a",
    "data": {"label": "result", "numeric": ["x"], "categorical": ["tool"], "window": {"rows": 100}},
    "task": {"kind": "classification", "classes": ["ok", "dent"], "normal": "ok"},
}


def rows(seed: int) -> pd.DataFrame:
    """Dents come from one tool in three."""
    rng = np.random.default_rng(seed)
    tool = rng.integers(0, 30, 600)
    bad = (tool % 3 == 0) & (rng.random(600) < 0.9)
    frame = pd.DataFrame({"x": rng.normal(size=600), "tool": [f"T{number}" for number in tool]})
    return frame.assign(label=np.where(bad, "dent", "ok"))


@pytest.mark.parametrize("embedding", ["none", "auto", 3])
def test_candidates_learn_from_categories(embedding: str | int) -> None:
    training = {"epochs": 40, "hidden": [16], "thetas": [0.1], "learning_rate": 0.02, "embedding": embedding}
    settings = Settings.model_validate({**CONFIG, "training": training})
    prepared = prepare_rows(rows(0), rows(1), settings, None)
    assert prepared.train[0].shape[1] == (2 if embedding != "none" else 32)
    candidates, lost = fit_candidates(prepared, settings, metadata={})
    assert not lost
    chosen, _ = choose(candidates)
    assert chosen.balanced_accuracy is not None
    assert chosen.balanced_accuracy > 0.9
    assert ("categories" in chosen.bundle.model_spec) == (embedding != "none")


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"epochs": 600}, 3),
        ({"epochs": 600, "processes": 1}, 1),
        ({"epochs": 1, "processes": 2}, 2),
        ({"epochs": 1}, 1),  # not worth a process
        ({"epochs": 600, "threads": 2}, 1),  # the cores are taken
        ({"epochs": 600, "device": "cuda"}, 1),
    ],
)
def test_models_are_trained_side_by_side_where_cores_would_be_idle(
    training: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: {0, 1, 2})
    settings = Settings.model_validate({**CONFIG, "training": {"hidden": [16], **training}})
    assert processes(prepare_rows(rows(0), rows(1), settings, None), settings, 4) == expected


def test_rows_that_would_be_too_much_to_copy_are_trained_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({**CONFIG, "training": {"epochs": 600}})
    monkeypatch.setattr(module, "LARGEST_COPY", 1000)
    assert processes(prepare_rows(rows(0), rows(1), settings, None), settings, 4) == 1


def test_levels_and_scale_from_the_losses_seen() -> None:
    training = {"epochs": 10, "hidden": [16], "thetas": ["auto", 0.3], "sigma": "auto", "learning_rate": 0.02}
    settings = Settings.model_validate({**CONFIG, "training": training})
    candidates, _ = fit_candidates(prepare_rows(rows(0), rows(1), settings, None), settings, metadata={"who": "test"})
    assert [one.name for one in candidates] == ["erm", "theta auto", "theta 0.3"]
    seen = min(epoch.validation for epoch in candidates[1].result.history if epoch.validation is not None)
    assert candidates[1].theta == pytest.approx(AUTO_SHARE * seen, rel=1e-5)
    assert candidates[1].bundle.metadata["sigma"] == pytest.approx(seen, rel=1e-5)
    assert candidates[2].theta == 0.3
    assert [one.bundle.metadata["who"] for one in candidates] == ["test"] * 3
    assert candidates[0].bundle.metadata["theta"] is None


def test_where_every_level_costs_the_mean_or_a_class_plain_training_is_taken() -> None:
    training = {"epochs": 10, "hidden": [16], "thetas": [0.1], "learning_rate": 0.02}
    settings = Settings.model_validate({**CONFIG, "training": training})
    candidates, _ = fit_candidates(prepare_rows(rows(0), rows(1), settings, None), settings, metadata={})
    erm, soft = candidates
    same = replace(soft, losses=erm.losses, hits=erm.hits)
    assert choose([erm, same])[0].theta == 0.1
    assert choose([erm, replace(same, losses=erm.losses + 1.0)])[0] is erm
    assert erm.hits is not None
    blind = np.where(np.arange(600) < 40, 0.0, erm.hits)
    chosen, because = choose([erm, replace(same, hits=blind)])
    assert chosen is erm
    assert "no theta kept the mean" in because
    one_row = np.where(np.arange(600) == int(erm.hits.argmax()), 0.0, erm.hits)
    assert choose([erm, replace(same, hits=one_row)])[0].theta == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"thetas": ["auto", 0.0]}}, "greater than 0"),
        ({"training": {"embedding": 0}}, "greater than or equal to 1"),
        ({"training": {"embedding": "auto", "model": "cnn"}}, "embedding is auto, which linear and mlp take"),
        ({"training": {"embedding": 4}, "data": {**CONFIG["data"], "image": "photo"}}, "only tables have it"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({**CONFIG, **changes})


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"thetas": ["auto", "low"]}, "training.thetas.1: Input should be a valid number, unable to parse string as a "
         "number, or input should be 'auto' (it is 'low')"),
        ({"sigma": -1}, "training.sigma: Input should be greater than 0, or input should be 'auto' (it is -1)"),
    ],
)  # fmt: skip
def test_a_value_that_may_be_a_number_or_a_word_is_explained(training: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({**CONFIG, "training": training})
    assert explain(raised.value) == sentence


def test_objectives_by_name_are_tried_and_without_any_training_is_plain() -> None:
    training = {"epochs": 6, "hidden": [16], "thetas": [], "objectives": ["CVaR 0.9"], "learning_rate": 0.02}
    settings = Settings.model_validate({**CONFIG, "training": training})
    prepared = prepare_rows(rows(0), rows(1), settings, None)
    candidates, _ = fit_candidates(prepared, settings, metadata={})
    assert [one.name for one in candidates] == ["erm", "CVaR 0.9"]
    erm, other = candidates
    assert not np.array_equal(erm.losses, other.losses)
    assert choose([erm, replace(other, losses=0.5 * erm.losses, hits=erm.hits)])[0].name == "CVaR 0.9"
    plain = Settings.model_validate({**CONFIG, "training": {**training, "objectives": []}})
    (alone,), _ = fit_candidates(prepared, plain, metadata={})
    chosen, because = choose([alone])
    assert chosen is alone and "plain" in because
    with pytest.raises(ValidationError, match="chi-square"):
        Settings.model_validate({**CONFIG, "training": {"objectives": ["CVaR"]}})
