"""Hard parts, their effect and what errors cost, on evidence that is worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows.pilot_cost import best_threshold, costs
from flows.pilot_effect import Effect, effects
from flows.pilot_sentences import effect_sentence
from flows.pilot_words import Words, _catalogue
from softad.paired import Difference
from softad.pilot_evidence import Evidence

ROUNDS, ROWS = 6, 400


def study(*, helped: int = 0) -> Any:
    """400 rows judged six times; the first tenth is hard, and the other candidate gets `helped` of them right."""
    hard = np.arange(ROWS) < ROWS // 10
    target = (np.arange(ROWS) % 4 == 0).astype(np.int64)
    rng = np.random.default_rng(0)

    def said(right: np.ndarray) -> np.ndarray:
        of_truth = np.where(right, 0.8, 0.2) + rng.uniform(-0.01, 0.01, ROWS)
        first = np.where(target == 0, of_truth, 1 - of_truth)
        return np.stack([first, 1 - first], axis=1).astype(np.float32)

    right = {"ERM": ~hard, "SoftAD": ~hard | (np.arange(ROWS) < helped)}
    every = np.arange(ROWS)
    outputs = {name: tuple(said(one) for _ in range(ROUNDS)) for name, one in right.items()}
    losses = {
        name: tuple(-np.log(one[every, target].astype(np.float64)) for one in found) for name, found in outputs.items()
    }
    evidence = Evidence(
        (every,) * ROUNDS, (every,) * ROUNDS, (target,) * ROUNDS, losses, outputs, (Difference(-0.5, 0.01, ROUNDS),)
    )
    return SimpleNamespace(evidence=evidence, classes=("ok", "dent"))


def test_hard_parts_are_those_with_the_largest_loss_over_all_candidates() -> None:
    assert study().evidence.hard_rows(0.1).tolist() == list(range(ROWS // 10))


def test_of_1000_hard_parts_as_many_fewer_are_misjudged_as_were_helped() -> None:
    hard, normal = effects(study(helped=20), "SoftAD", tolerance=None)
    assert (hard.parts, normal.parts) == ("hard", "normal")
    assert hard.plain == pytest.approx(1000.0) and hard.change == pytest.approx(-500.0)
    assert hard.measurable and hard.low < -500.0 < hard.high < 0.0
    assert normal.change == 0.0 and not normal.measurable


@pytest.mark.parametrize(
    ("effect", "wanted"),
    [
        (Effect("hard", 200, 169, -31, -45, -17, 90), "Of 1,000 hard parts, 31 fewer are misjudged (17 to 45 fewer)"),
        (Effect("hard", 200, 231, 31, 17, 45, 90), "Of 1,000 hard parts, 31 more are misjudged (17 to 45 more)"),
        (Effect("normal", 20, 19, -1, -3.2, 1.5, 900), "Normal parts: unchanged within ±4 of 1,000 misjudged"),
    ],
)
def test_an_effect_is_told_in_parts(effect: Effect, wanted: str) -> None:
    assert effect_sentence(Words("en"), effect).startswith(wanted)


def test_the_dearer_a_miss_the_lower_the_threshold() -> None:
    rng = np.random.default_rng(0)
    defects = rng.random(4000) < 0.2
    scores = np.where(defects, rng.beta(4, 2, 4000), rng.beta(2, 4, 4000))
    limits = [best_threshold(scores, defects, miss, 1.0) for miss in (1.0, 5.0, 20.0)]
    assert limits[0] > limits[1] > limits[2]


def test_of_calibrated_probabilities_the_best_threshold_is_the_ratio_of_the_costs() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(100_000)
    assert best_threshold(scores, rng.random(100_000) < scores, 4.0, 1.0) == pytest.approx(0.2, abs=0.03)


def test_costs_of_a_model_that_helps_are_lower_by_what_it_helps() -> None:
    (found,) = costs(study(helped=20), "SoftAD", "ok", [(1.0, 1.0)])
    # 20 of 400 rows are no longer wrong, each of which cost 1.
    assert found.change == pytest.approx(-50.0) and found.high < 0.0
    assert found.plain == pytest.approx(100.0) and found.missed + found.rejected == pytest.approx(50.0)
    assert costs(study(), "SoftAD", None, [(1.0, 1.0)]) == []


def test_both_languages_have_the_same_words_with_the_same_braces() -> None:
    english, japanese = _catalogue("en"), _catalogue("ja")
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        braces = [sorted(part.split("}")[0] for part in one.split("{")[1:]) for one in (text, japanese[key])]
        assert braces[0] == braces[1], key


def test_a_name_in_braces_stays_as_it_is() -> None:
    assert "{label}" in Words("en").say("quality.id", column="{label}")


def test_a_config_asks_for_what_a_study_names() -> None:
    from flows.pilot_verdict import objectives_of, thetas_of
    from softad.pilots import settings_grid

    asked = {one.name: (thetas_of(one), objectives_of(one)) for one in settings_grid(0.7, [90, 10])}  # type: ignore[arg-type]
    assert asked["ERM"] == ([], None) and asked["SoftAD theta=auto"] == (["auto"], None)
    assert asked["CVaR 0.9"] == (None, ["CVaR 0.9"]) and asked["tilted 1"] == (None, ["tilted 1"])
    assert asked["class weights"] == (None, None) and asked["focal loss 2"] == (None, None)
    both = [names for name, (_, names) in asked.items() if name.startswith("CVaR 0.5 + SoftAD")]
    assert both and all(names is not None for names in both)
