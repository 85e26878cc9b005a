"""Candidates of a retraining, without tables or registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from flows.candidates import choose, fit_candidates, prepare_rows
from flows.settings import Settings

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
    ("changes", "message"),
    [
        ({"training": {"embedding": 0}}, "greater than or equal to 1"),
        ({"training": {"embedding": "auto", "model": "cnn"}}, "embedding is auto, which linear and mlp take"),
        ({"training": {"embedding": 4}, "data": {**CONFIG["data"], "image": "photo"}}, "only tables have it"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({**CONFIG, **changes})
