"""The report of a window on the real Evidently: one alarm in test, file and result; bad columns; nothing leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitoring.scan import ConcentrationScan

NUMERIC = ["x0", "x1", "x2"]
CATEGORICAL = ["machine", "shift"]


def _frame(tag: str, rows: int, scale: float = 1.0, unlabelled: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng([len(tag), *tag.encode()])
    frame = pd.DataFrame({"_id": [f"{tag}-{row}" for row in range(rows)], "loss": scale * rng.lognormal(size=rows)})
    frame.loc[rng.random(rows) < unlabelled, "loss"] = np.nan
    for name in NUMERIC:
        frame[name] = rng.normal(size=rows)
    for name in CATEGORICAL:
        frame[name] = rng.choice(["A", "B", "C"], size=rows)
    return frame


REFERENCE = _frame("reference", 1500)


@pytest.fixture
def scan() -> ConcentrationScan:
    labelled = REFERENCE.dropna(subset="loss")
    scan = ConcentrationScan(alarm_budget=0.1, windows=20, lives=2000)
    return scan.fit(labelled["loss"], ids=labelled["_id"].tolist())


def _report(scan: ConcentrationScan, current: pd.DataFrame, folder: Path, **changes: object):  # type: ignore[no-untyped-def]
    from monitoring.report import run_report

    settings = {
        "current": current,
        "reference": REFERENCE,
        "scan": scan,
        "window": "2026-W02",
        "numeric": NUMERIC,
        "categorical": CATEGORICAL,
        "sample_rows": 500,
        "json": folder / "report.json",
    }
    return run_report(**(settings | changes))  # type: ignore[arg-type]


def test_a_shift_is_the_same_alarm_everywhere(scan: ConcentrationScan, tmp_path: Path) -> None:
    twin = ConcentrationScan.from_dict(scan.to_dict())
    current = _frame("w2", 900, scale=2.5)
    labelled = current.dropna(subset="loss")
    report = _report(scan, current, tmp_path, html=tmp_path / "report.html")
    document = json.loads((tmp_path / "report.json").read_text())
    (test,) = [each for each in document["tests"] if "ConcentrationShift" in each["metric_config"]["params"]["type"]]
    assert report.alarm and test["status"] == "FAIL" and document["scan"]["alarm"]
    assert report.threshold == test["test_config"]["threshold"] == report.result.threshold
    assert report.statistic == report.result.statistic
    assert scan.ended
    # The very same as the scan alone, on all labelled rows and not on the sample.
    alone = twin.update(labelled["loss"], window="2026-W02", ids=labelled["_id"].tolist())
    assert alone == report.result and alone.rows > 500
    assert twin.to_dict() == scan.to_dict()


def test_a_features_picture_shows_shares_and_its_distance_is_evidentlys(tmp_path: Path) -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    from monitoring.report_drift import LARGEST_BARS, FeatureDrift

    rng = np.random.default_rng(5)
    many = [f"v{each:02}" for each in range(40)]
    frames = [
        pd.DataFrame({
            "x": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(shift, 1.0, rows)),
            "one": 3.0,
            "machine": rng.choice(many, rows, p=rng.dirichlet(np.ones(40))),
        })
        for rows, shift in ((600, 0.5), (900, 0.0))
    ]  # fmt: skip
    definition = DataDefinition(numerical_columns=["x", "one"], categorical_columns=["machine"])
    now, then = (Dataset.from_pandas(each, data_definition=definition) for each in frames)
    drifts = [
        kind(column=name, method="psi", threshold=0.2) for name in frames[0] for kind in (FeatureDrift, ValueDrift)
    ]
    snapshot = Report(drifts).run(now, then)
    values = [each["value"] for each in json.loads(snapshot.json())["metrics"]]
    assert values[::2] == values[1::2] and values[0] > 0.2
    for kind in drifts[::2]:
        said, picture = snapshot.context.get_metric_result(kind.to_calculation().id).widget
        assert "drifted" in str(said.params)
        for each in picture.params["data"]:
            assert len(each["x"]) == len(each["y"]) <= max(24, LARGEST_BARS)
            whole = sum(each["y"])
            assert whole == pytest.approx(1.0, abs=0.01) if kind.column != "machine" else 0.5 < whole <= 1.0


def test_a_calm_window_passes_and_holds_our_figures(scan: ConcentrationScan, tmp_path: Path) -> None:
    from softad.figures import cvar, loss_concentration

    current = _frame("w3", 700)
    report = _report(scan, current, tmp_path)
    assert not report.alarm and report.result.state == "ok" and report.html is None
    metrics = json.loads(report.json.read_text())["metrics"]
    values = {
        (each["config"]["type"].rsplit(":", 1)[1], each["config"].get("measure")): each["value"] for each in metrics
    }
    losses, known = current["loss"].dropna(), REFERENCE["loss"].dropna()
    expected = loss_concentration(losses, theta=known.mean(), sigma=known.std(ddof=0))
    assert values["TailLoss", None] == pytest.approx(cvar(losses, 0.9))
    for measure in ("penalty", "top_share", "gini"):
        assert values["LossConcentrationMetric", measure] == pytest.approx(getattr(expected, measure).value)
    assert report.drift_share == 0.0 and report.drifted == []
    missing = [each for each in metrics if each["config"]["type"].endswith("MissingValueCount")]
    assert len(missing) == 5 and all(each["value"]["share"] == 0 for each in missing)


@pytest.mark.parametrize("alarm", [True, False])
def test_a_changed_threshold_changes_file_and_result_alike(tmp_path: Path, alarm: bool) -> None:
    # Without a smallest relevant effect, which a drill's threshold does not touch.
    scan = ConcentrationScan(0.1, 20, relevant_effect=None, lives=2000).fit(REFERENCE["loss"].dropna())
    window = _frame("w4", 800, scale=1.0 if alarm else 3.0)
    usual = _report(ConcentrationScan.from_dict(scan.to_dict()), window, tmp_path)
    assert usual.alarm is not alarm
    report = _report(scan, window, tmp_path, threshold=-50.0 if alarm else 1000.0, json=tmp_path / "drill.json")
    document = json.loads((tmp_path / "drill.json").read_text())
    (status,) = [each["status"] for each in document["tests"]]
    assert (report.alarm, report.result.alarm, document["scan"]["alarm"]) == (alarm, alarm, alarm)
    assert status == ("FAIL" if alarm else "SUCCESS")
    assert scan.ended is alarm
    assert report.result.statistic == usual.result.statistic


def test_the_smallest_relevant_effect_is_part_of_what_is_tested(tmp_path: Path) -> None:
    reference = _frame("many", 12_000)
    labelled = reference.dropna(subset="loss")
    alarms = {}
    for effect in (1.0, 1.3):
        scan = ConcentrationScan(0.1, 5, relevant_effect=effect, lives=2000).fit(labelled["loss"])
        report = _report(scan, _frame("w5", 30_000, scale=1.08), tmp_path, reference=reference)
        (test,) = json.loads(report.json.read_text())["tests"]
        alarms[effect] = (report.alarm, test["status"], report.result.statistic > report.result.threshold)
    assert alarms == {1.0: (True, "FAIL", True), 1.3: (False, "SUCCESS", True)}


def test_bad_columns_are_named_and_the_rest_is_computed(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = _frame("w6", 600)
    current["x0"] = np.nan
    current["x1"] = current["x1"].astype(object).where(current.index % 7 > 0, "broken")
    current["machine"] = None
    current["x2"] += 3
    report = _report(scan, current, tmp_path, numeric=[*NUMERIC, "gone"], html=tmp_path / "report.html")
    assert set(report.left_out) == {"x0", "x1", "machine", "gone"}
    assert report.left_out["x0"] == "this window: there is no value"
    assert "the first is broken" in report.left_out["x1"]
    assert report.left_out["gone"] == "this window: the column is missing"
    assert report.drifted == ["x2"] and report.drift_share == 0.5
    assert report.result.state == "ok" and report.html is not None and report.html.stat().st_size > 1_000_000


def test_a_column_that_evidently_cannot_compare_does_not_judge_twice(
    scan: ConcentrationScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import monitoring.report as module

    real = module._drift_threshold
    # Evidently refuses a threshold that is no number: an error from inside it, for one column only.
    monkeypatch.setattr(module, "_drift_threshold", lambda clean, name: "?" if name == "x1" else real(clean, name))
    twin, current = ConcentrationScan.from_dict(scan.to_dict()), _frame("w7", 600)
    report = _report(scan, current, tmp_path)
    assert list(report.left_out) == ["x1"] and "Evidently cannot compare it" in report.left_out["x1"]
    labelled = current.dropna(subset="loss")
    assert twin.update(labelled["loss"], window="2026-W02", ids=labelled["_id"].tolist()) == report.result
    assert twin.to_dict() == scan.to_dict()


def test_few_or_no_labels_give_a_report_without_a_test(scan: ConcentrationScan, tmp_path: Path) -> None:
    few = _report(scan, _frame("w8", 30), tmp_path, window="2026-W08")
    assert (few.alarm, few.result.state, few.statistic, few.threshold) == (False, "too_few_labels", None, None)
    assert few.result.missing > 0 and "there are only 30 values" in few.left_out["x0"]
    unlabelled = _frame("w9", 600).assign(loss=np.nan)
    none = _report(scan, unlabelled, tmp_path, window="2026-W09")
    assert none.result.rows == 0 and none.left_out == {}
    empty = _report(scan, unlabelled[:0], tmp_path, window="2026-W10", html=tmp_path / "empty.html")
    assert empty.left_out["x0"] == "this window: there are no rows"
    document = json.loads(empty.json.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["tests"] == []
    assert {each["value"] for each in document["metrics"] if "TailLoss" in each["metric_name"]} == {None}


def test_no_row_is_written_into_the_report(scan: ConcentrationScan, tmp_path: Path) -> None:
    current = _frame("secret", 600).assign(note=[f"private-{row}" for row in range(600)])
    report = _report(scan, current, tmp_path, html=tmp_path / "report.html")
    assert report.html is not None
    for text in (report.json.read_text(), report.html.read_text()):
        assert "secret-1" not in text and "private-" not in text
        assert str(current["loss"].dropna().iloc[0]) not in text
    assert report.json.stat().st_size < 30_000


def test_a_window_is_not_judged_twice_and_files_stay_whole(scan: ConcentrationScan, tmp_path: Path) -> None:
    _report(scan, _frame("w11", 600), tmp_path)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(ValueError, match="judged already"):
        _report(scan, _frame("w11", 600), tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        _report(scan, _frame("w12", 600), tmp_path, window="2026-W12", json=tmp_path / "file" / "report.json")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "report.json"]


def test_report_and_scan_cannot_disagree_silently(scan: ConcentrationScan, tmp_path: Path) -> None:
    from dataclasses import replace

    from monitoring.report import read_report

    report = _report(scan, _frame("w13", 800, scale=3.0), tmp_path)
    assert read_report(report.json, result=report.result) == report
    with pytest.raises(RuntimeError, match="the report says alarm True"):
        read_report(report.json, result=replace(report.result, alarm=False))


def test_lots_are_judged_in_the_report_too(tmp_path: Path) -> None:
    reference = REFERENCE.assign(_lot=[f"r{row // 15}" for row in range(len(REFERENCE))]).dropna(subset="loss")
    scan = ConcentrationScan(0.1, 10, lives=1000).fit(reference["loss"], lots=reference["_lot"].tolist())
    current = _frame("w14", 450, scale=4.0).assign(_lot=[f"w{row // 15}" for row in range(450)])
    report = _report(scan, current, tmp_path, reference=reference)
    assert report.alarm and report.result.lots == 30


def test_many_rows_and_columns_are_quick_enough(scan: ConcentrationScan, tmp_path: Path) -> None:
    """About half a second on a quiet machine, ten columns and 1,000 sampled rows."""
    names = [f"y{each}" for each in range(7)]
    rng = np.random.default_rng(0)
    reference = REFERENCE.assign(**{name: rng.normal(size=len(REFERENCE)) for name in names})
    current = _frame("w15", 3000)
    current = current.assign(**{name: rng.normal(size=3000) for name in names}, line=rng.choice(["L1", "L2"], 3000))
    taken = []
    for week in range(3):
        begin = time.process_time()
        report = _report(
            scan,
            current.assign(_id=[f"{week}-{row}" for row in range(3000)]),
            tmp_path,
            reference=reference.assign(line="L1"),
            window=f"W{week}",
            numeric=names,
            categorical=[*CATEGORICAL, "line"],
            sample_rows=1000,
        )
        taken.append(time.process_time() - begin)
    assert report.drifted == ["line"]
    assert min(taken) <= 1.5


def test_evidently_alone_sends_nothing(tmp_path: Path) -> None:
    """Imported without the pipeline, the module itself switches the telemetry off; every connect is made to fail."""
    script = """
import socket, sys
tried = []
def refuse(self, address, *rest):
    tried.append(address)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
import os
for name in ("DO_NOT_TRACK", "ITERATIVE_DO_NOT_TRACK"):
    os.environ.pop(name, None)
import numpy as np, pandas as pd, pathlib
from monitoring.report import run_report
from monitoring.scan import ConcentrationScan
rng = np.random.default_rng(0)
frame = pd.DataFrame({"_id": range(400), "loss": rng.exponential(size=400), "x": rng.normal(size=400)})
scan = ConcentrationScan(windows=5, lives=500).fit(frame["loss"])
folder = pathlib.Path(sys.argv[1])
rest = {"numeric": ["x"], "categorical": [], "json": folder / "a.json"}
run_report(current=frame, reference=frame, scan=scan, window="W1", **rest)
print(len(tried), os.environ["DO_NOT_TRACK"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["0", "true"]
