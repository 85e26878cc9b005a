"""Pilot studies on simulated rows: what is always there, what the budget does, and what the report holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from softad.criteria import SoftAD
from softad.judging import judge_classes
from softad.models import build_model
from softad.pilot_report import PilotReport
from softad.pilot_rows import check_rows, cut_round
from softad.pilot_summary import report_of
from softad.pilots import Search, Setting, settings_grid
from softad.sensitivity import sensitivity_curve, sensitivity_figure
from softad.stacked import train_stack
from softad.training import fit, outputs_of
from softad.tuning import pilot


def simulated(rows: int = 240, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["machine"] = rng.choice(["M1", "M2"], rows)
    frame.loc[::17, "b"] = np.nan
    score = frame["a"] + (frame["machine"] == "M2") + 0.7 * rng.normal(size=rows)
    return frame, np.where(score > 1.2, "dent", "ok")


@pytest.fixture(scope="module")
def report() -> PilotReport:
    before = torch.get_num_threads()
    X, y = simulated()
    said: list[str] = []
    found = pilot(
        X, y, budget_seconds=60, epochs=6, hidden=(8,), repeats=3, progress=lambda share, what: said.append(what)
    )
    assert torch.get_num_threads() == before
    tried = sum(one.source == "grid" for one in found.candidates)
    assert tried > 20
    assert said[:3] == [f"round {n}: {tried} candidates" for n in (1, 2, 3)]
    return found


def test_erm_and_the_strong_baselines_are_candidates(report: PilotReport) -> None:
    names = [one.name for one in report.candidates]
    assert names[0] == "ERM"
    assert {"label smoothing 0.1", "focal loss 2", "class weights", "CVaR 0.5", "SoftAD theta=auto"} <= set(names)
    assert len(set(names)) == len(names)
    assert not report.candidates[0].differences
    assert report.rounds == 3
    assert report.normal == "ok"


def test_optuna_searches_on_in_the_time_left_and_is_left_as_it_was(report: PilotReport) -> None:
    assert sum(one.source == "search" for one in report.candidates) == 24
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_candidates_of_one_study_are_told_apart(report: PilotReport) -> None:
    by_name = {one.name: one for one in report.candidates}
    erm, other = by_name["ERM"], by_name["CVaR 0.5"]
    assert other.differences["tail"].value == pytest.approx(
        other.figures["tail"].value / erm.figures["tail"].value - 1, abs=1e-9
    )
    assert other.differences["recall"].value == pytest.approx(
        other.figures["recall"].value - erm.figures["recall"].value, abs=1e-9
    )
    searched = [one for one in report.candidates if one.source == "search" and one.kind == "bounded"]
    assert searched
    assert all(one.theta is not None and f"theta={one.theta:.2g}"[:9] in one.name for one in searched)
    assert set(erm.before) == {"mean", "tail", "stability"}
    assert by_name["SoftAD theta=auto"].theta is not None
    assert by_name["SoftAD theta=auto"].theta > 0
    assert by_name["SoftAD theta=auto"].spec.criterion.theta == "auto"  # type: ignore[attr-defined]


def test_the_pareto_set_and_the_verdicts(report: PilotReport) -> None:
    table = report.frame()
    assert set(table.index[table["pareto"]]) == set(report.pareto)
    assert table.index[table["verdict"] == "recommended"].tolist() == [report.recommendation.name]
    assert report.recommendation.reason
    weighed = table[["mean", "tail", "stability"]].assign(recall=-table["recall"])
    best = weighed.loc[list(report.pareto)]
    for name, row in weighed.iterrows():
        if name not in report.pareto:
            assert ((best <= row).all(axis=1) & (best < row).any(axis=1)).any()


def test_the_sensitivity_curves(report: PilotReport) -> None:
    assert [curve.figure for curve in report.sensitivity] == ["mean", "tail", "stability", "balanced_accuracy"]
    curve = report.sensitivity[1]
    assert len(curve.theta) >= 6
    assert list(curve.theta) == sorted(curve.theta)
    at = report.candidate(f"SoftAD theta={curve.theta[0]:g}").figures["tail"].value
    assert curve.bands[0].value == pytest.approx(at)
    assert curve.baseline.value == pytest.approx(report.candidates[0].figures["tail"].value)
    assert curve.bands[0].low < curve.bands[0].value < curve.bands[0].high


def test_the_page_needs_no_network_and_holds_the_table(report: PilotReport, tmp_path: Path) -> None:
    text = report.write_html(tmp_path / "pilot.html").read_text(encoding="utf-8")
    assert "<script src=" not in text
    assert "<link" not in text
    assert report.recommendation.reason.split(":")[0] in text
    assert text.count("<tr") >= len(report.candidates)


def test_the_report_goes_through_json(report: PilotReport) -> None:
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["recommendation"]["name"] == report.recommendation.name
    assert len(document["candidates"]) == len(report.candidates)


def test_a_candidate_trains_by_fit(report: PilotReport) -> None:
    x, y = torch.randn(80, 2, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 2
    for name in ("focal loss 1", "class weights", "SoftAD theta=auto", "label smoothing 0.05"):
        one = report.candidate(name)
        result = fit(build_model("linear", inputs=(2,), outputs=2, seed=0), x, y, epochs=1, **one.fit_kwargs())
        assert result.best_epoch == 1
    assert report.candidate("SoftAD theta=auto").spec.criterion.theta == "auto"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="name: 'GAN'"):
        report.candidate("GAN")


def test_the_same_seed_gives_the_same_figures(report: PilotReport) -> None:
    X, y = simulated()
    again = pilot(X, y, budget_seconds=60, epochs=6, hidden=(8,), repeats=1)
    other = pilot(X, y, budget_seconds=60, epochs=6, hidden=(8,), repeats=1)
    assert again.candidates[0].figures == other.candidates[0].figures
    assert again.recommendation.name == "ERM"
    assert [one.name for one in again.candidates] == [one.name for one in other.candidates]


@pytest.mark.parametrize("seconds", [0.01, 0.5])  # the first ends within the probe
def test_a_budget_that_is_too_short_is_kept_and_said(seconds: float) -> None:
    X, y = simulated(rows=6000)
    found = pilot(X, y, budget_seconds=seconds, hidden=(64, 64), epochs=60)
    assert found.recommendation.name == "ERM"
    assert found.rounds < 3
    assert found.rows < 6000
    assert any("budget" in note for note in found.notes)
    assert all(one.source == "grid" for one in found.candidates)


def test_regression_has_its_own_figures() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = 10 * x[:, 0] + rng.standard_t(2, size=200)
    found = pilot(x, y, budget_seconds=30, epochs=5, hidden=(8,), repeats=2)
    figures = found.candidates[0].figures
    assert found.task == "regression"
    assert set(figures) == {"mean", "tail", "stability", "absolute_error", "rmse"}
    assert figures["rmse"].value >= figures["absolute_error"].value > 0.5
    assert not any("focal" in one.name or "class" in one.name for one in found.candidates)
    assert found.sensitivity[-1].figure == "rmse"
    assert found.to_dict()["normal"] is None


def test_a_rare_class_is_recognised() -> None:
    """Failures are rare and hard to see: bounding their pull loses them, and the report says so."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    rows = check_rows(x, (x[:, 0] + 0.5 * x[:, 1] + 0.5 * rng.normal(size=3000) > 2.1).astype(int))
    settings = [one for one in settings_grid(0.075, None) if one.name in ("ERM", "SoftAD theta=auto", "CVaR 0.5")]
    rounds = [cut_round(rows, number, 0) for number in range(8)]
    judged = []
    for cut in rounds:
        results = train_stack(
            [one.pilot(cut.number) for one in settings],
            [cut.split],
            lambda seed: build_model("linear", inputs=(4,), outputs=2, seed=seed),
            epochs=40, batch_size=128, learning_rate=0.1, patience=5,
        )  # fmt: skip
        logits = [
            [outputs_of(one.model, part).numpy() for part in (cut.features, cut.split.validation_features)]
            for one in results
        ]
        held = cut.split.validation_targets.numpy()
        judged.append(
            {
                one.name: judge_classes(own, cut.target, before, held, normal=0, rate=0.05)
                for one, (own, before) in zip(settings, logits, strict=True)
            }
        )
    found = report_of(
        rows, settings, judged, [{}] * len(rounds), [cut.rows for cut in rounds],
        training={}, notes=[], seconds=1.0, budget=1.0, normal="0",
            constants=[cut.constant_losses(len(rows.classes)) for cut in rounds],
    )  # fmt: skip
    assert found.recommendation.case == "rare class", found.recommendation.case_reason
    assert "balanced accuracy" in found.recommendation.case_reason
    assert found.recommendation.name != "SoftAD theta=auto"


def test_too_few_epochs_are_said(report: PilotReport) -> None:
    assert report.recommendation.case == "trained too briefly to tell"
    assert any("still improving after 6 epochs in 3 of 3 rounds" in note for note in report.notes)


def test_the_search_learns_from_the_grid_and_from_what_it_is_told() -> None:
    """Where SoftAD is best by far it is asked for more and more; nothing is asked for twice."""

    def figures(settings: Sequence[Setting]) -> dict[str, tuple[float, float]]:
        return {one.name: (0.1, 0.1) if isinstance(one.spec.criterion, SoftAD) else (9.0, 9.0) for one in settings}

    grid = settings_grid(0.7, None)
    search = Search(grid, figures(grid), reference=0.7, seed=0)
    names = [one.name for one in grid]
    for _ in range(6):
        asked = search.ask(8)
        search.tell(figures(asked))
        names += [one.name for one in asked]
    assert len(set(names)) == len(names) == len(grid) + 48
    assert sum(isinstance(one.spec.criterion, SoftAD) for one in asked) >= 6


def test_a_fixed_seed_band_takes_off_what_rounds_share() -> None:
    curve = sensitivity_curve("tail", "tail", {0.1: [1.0, 11.0], 0.2: [2.0, 12.0]}, [3.0, 13.0])
    assert all(band.high - band.low == pytest.approx(0.0, abs=1e-12) for band in curve.bands)
    assert len(sensitivity_figure([curve] * 3).layout.annotations) == 3
    with pytest.raises(ValueError, match="by_theta"):
        sensitivity_curve("tail", "tail", {0.1: [1.0]}, [3.0, 13.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_seconds": 0}, r"budget_seconds: 0; allowed: \(0, inf\)"),
        ({"budget_seconds": float("nan")}, "budget_seconds: nan"),
        ({"model": "forest"}, "model: 'forest'; allowed"),
        ({"model": "cnn"}, "model: 'cnn'; allowed"),
        ({"hidden": (0,)}, "hidden: "),
        ({"epochs": 0}, "epochs: 0"),
        ({"batch_size": "big"}, "batch_size: 'big'"),
        ({"optimizer": "lbfgs"}, "optimizer: 'lbfgs'"),
        ({"repeats": 0}, "repeats: 0"),
        ({"false_reject_rate": 1.0}, "false_reject_rate: 1.0"),
        ({"normal": "fine"}, "normal: 'fine'; allowed: one of dent, ok"),
        ({"threads": 0}, "threads: 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    X, y = simulated(60)
    with pytest.raises(ValueError, match=message):
        pilot(X, y, **options)
