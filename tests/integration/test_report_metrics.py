"""Our metrics on the real Evidently: by themselves with tests, and in a window's report with the verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring.scan import ConcentrationScan


def plant(seed: int, rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "_id": [f"{seed}-{row}" for row in range(rows)],
            "loss": rng.lognormal(size=rows),
            "temperature": rng.normal(190, 3, rows),
            "machine": rng.choice([f"M{number:02d}" for number in range(1, 11)], rows),
            "product": rng.choice(["P1", "P2"], rows),
        }
    )


REFERENCE = plant(1, 3000)


@pytest.fixture
def scan() -> ConcentrationScan:
    # Every effect is relevant: what follows from an alarm is looked at here, not how large a change must be.
    scan = ConcentrationScan(0.1, 20, relevant_effect=None, lives=2000)
    return scan.fit(REFERENCE["loss"], ids=REFERENCE["_id"].tolist())


def report_of(scan: ConcentrationScan, current: pd.DataFrame, folder: Path, **changes: Any) -> Any:
    from monitoring.report import run_report

    settings = {
        "current": current, "reference": REFERENCE, "scan": scan, "window": "2026-W07", "numeric": ["temperature"],
        "categorical": ["machine"], "slices": ["machine", "product"], "json": folder / "report.json",
        "sample_rows": 500,
    }  # fmt: skip
    return run_report(**(settings | changes))


def by_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in document["metrics"] if each["config"]["type"].endswith(f":{kind}")]


def test_the_verdict_and_its_place_are_in_the_report(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = plant(2, 2000)
    current.loc[current["machine"] == "M07", "loss"] *= 5
    report = report_of(scan, current, tmp_path)
    assert report.verdict.kind == "inspect" and report.attribution.findings[0].value == "M07"
    document = json.loads(report.json.read_text())
    said = document["verdict"]
    assert (said["kind"], said["column"], said["value"]) == ("inspect", "machine", "M07")
    assert said["sentence"].startswith("Look at machine M07: it carries")


def test_a_range_of_a_feature_is_the_evidence_for_a_retraining(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = plant(3, 2000)
    current.loc[current["temperature"] > 194, "loss"] *= 5
    verdict = report_of(scan, current, tmp_path, language="ja").verdict
    assert (verdict.kind, verdict.reason_key, verdict.column) == ("retrain", "one_range", None)
    assert verdict.evidence[0].column == "temperature" and verdict.evidence[0].is_range
    told = json.loads((tmp_path / "report.json").read_text())["verdict"]["sentence"]
    assert re.search(r"temperature が 19\d\.\d 以上の品が、増えた難しい品の 100 % を占めています。$", told), told


def test_figures_by_slice_are_those_of_the_rows(scan: ConcentrationScan, tmp_path: Path) -> None:
    from softad.figures import cvar

    current = plant(4, 1500)
    current.loc[:20, "product"] = None
    current.loc[100:300, "loss"] = np.nan
    document = json.loads(report_of(scan, current, tmp_path).json.read_text())
    figures = {(each["config"]["slice"], each["config"]["measure"]): each["value"] for each in
               by_kind(document, "SliceFigure")}  # fmt: skip
    assert set(figures) == {(name, measure) for name in ("machine", "product") for measure in ("mean", "tail")}
    known = current.dropna(subset="loss")
    here = known.loc[known["machine"] == "M03", "loss"].to_numpy()
    assert figures["machine", "mean"]["M03"] == pytest.approx(here.mean())
    assert figures["machine", "tail"]["M03"] == pytest.approx(cvar(here, 0.9))
    assert set(figures["product", "mean"]) == {"P1", "P2", "(others)"}


def test_ten_thousand_values_of_a_slice_are_taken_together(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = plant(5, 12_000)
    current["batch"] = [f"B{row % 10_000:05d}" for row in range(len(current))]
    current.loc[current["machine"] == "M07", "loss"] *= 4
    reference = REFERENCE.assign(batch="B00000")
    report = report_of(
        scan, current, tmp_path, reference=reference, slices=["batch", "machine"], categorical=["batch", "machine"],
        html=tmp_path / "report.html",
    )  # fmt: skip
    assert (report.verdict.kind, report.verdict.value) == ("inspect", "M07")
    (mean, _, _, _) = by_kind(json.loads(report.json.read_text()), "SliceFigure")
    assert len(mean["value"]) == 21 and "(others)" in mean["value"]
    assert report.json.stat().st_size < 40_000 and report.html.stat().st_size < 6_500_000


def test_a_slice_that_is_empty_or_missing_costs_only_itself(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = plant(6, 800).assign(line=None)
    report = report_of(scan, current, tmp_path, slices=["line", "gone", "machine"])
    assert report.result.state == "ok" and report.verdict.kind == "healthy"
    names = {each["config"]["slice"] for each in by_kind(json.loads(report.json.read_text()), "SliceFigure")}
    assert names == {"machine"}


@pytest.mark.parametrize("harm", [False, True])
def test_a_changed_threshold_changes_test_verdict_and_sentence_alike(tmp_path: Path, harm: bool) -> None:
    scan = ConcentrationScan(0.1, 20, relevant_effect=None, lives=2000).fit(REFERENCE["loss"])
    current = plant(7, 2000)
    current.loc[current["machine"] == "M07", "loss"] *= 5
    report = report_of(scan, current, tmp_path, threshold=-50.0 if harm else 1000.0)
    document = json.loads(report.json.read_text())
    (status,) = [each["status"] for each in document["tests"]]
    assert (status, report.alarm) == (("FAIL", True) if harm else ("SUCCESS", False))
    assert document["verdict"]["kind"] == report.verdict.kind == ("inspect" if harm else "healthy")
    assert (report.attribution is None) is not harm


def test_our_metrics_take_tests_in_a_report_of_ones_own() -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.tests import gte, lte

    from monitoring.report_metrics import LossConcentrationMetric, SliceFigure, TailLoss

    definition = DataDefinition(numerical_columns=["loss"], categorical_columns=["machine"])
    frames = [frame[["loss", "machine"]] for frame in (plant(8, 900), REFERENCE)]
    now, then = (Dataset.from_pandas(frame, definition) for frame in frames)
    report = Report([
        LossConcentrationMetric(measure="gini", theta=1.6, sigma=2.0, tests=[lte(0.9)]),
        TailLoss(level=0.95, tests=[lte(0.1)]),
        SliceFigure(slice="machine", measure="mean", tests={"M03": [gte(0.1)], "M99": [lte(1.0)]}),
        SliceFigure(slice="machine", measure="loss_share"),
    ]).run(now, then)  # fmt: skip
    document = json.loads(report.json())
    assert [each["status"] for each in document["tests"]] == ["SUCCESS", "FAIL", "SUCCESS", "ERROR"]
    assert sum(document["metrics"][3]["value"].values()) == pytest.approx(1.0)
    alone = json.loads(Report([TailLoss(), SliceFigure(slice="machine")]).run(now, None).json())
    assert len(alone["metrics"]) == 2 and len(alone["metrics"][1]["value"]) == 10


def test_a_curve_holds_no_single_row() -> None:
    from monitoring.report_widgets import LEAST_ROWS, POINTS, concentration_curve

    for rows in (3, 50, 100_000):
        share, carried = concentration_curve(np.random.default_rng(rows).lognormal(size=rows))
        assert len(share) <= POINTS + 1 and (np.diff(share) * rows >= min(LEAST_ROWS, rows) - 1e-6).all()
        assert (carried[0], carried[-1]) == (0.0, pytest.approx(1.0)) and (np.diff(carried) > 0).all()
    assert concentration_curve(np.zeros(9))[1].tolist() == [0.0, 1.0]
    assert concentration_curve(np.zeros(0))[1].tolist() == [0.0, 1.0]
