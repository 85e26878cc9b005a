"""Columns that give the label away are named and left out, and honest ones stay."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.errors import BadConfig
from flows.propose import propose
from tests.unit.proposals import ROWS, bad_of, said, save


def test_each_kind_of_leak_is_found_and_honest_columns_are_not(tmp_path: Path, measured: pd.DataFrame) -> None:
    random = np.random.default_rng(3)
    bad = random.random(ROWS) < 0.1
    kinds = np.where(bad, np.array(["scratch", "dent"])[np.arange(ROWS) % 2], "")
    frame = measured.assign(
        repair_code=np.where(bad & (random.random(ROWS) < 0.5), "R7", "-"),  # one value fixes the label
        severity=np.where(bad, 5.0, 1.0) + random.random(ROWS).round(3),  # AUC 1
        defect_kind=kinds,  # filled only where bad
        closed_on=np.where(bad, "2026-03-01", ""),  # a date only where bad
        machine=np.array(["M1", "M2", "M3"])[np.arange(ROWS) % 3],
        defect=bad.astype(int),
    )
    found = propose(save(tmp_path, frame))
    assert {leak.column: leak.rule for leak in found.leaks} == {
        "repair_code": "value",
        "severity": "auc",
        "defect_kind": "value",
        "closed_on": "value",
    }
    assert found.settings.data.numeric == ["torque", "temperature", "load"]
    assert found.settings.data.categorical == ["machine"]
    assert all(name in found.settings.data.left_out for name in ("repair_code", "severity", "defect_kind", "closed_on"))


def test_value_rule_stands_at_thirty_rows_and_at_its_precision(tmp_path: Path, measured: pd.DataFrame) -> None:
    bad = np.arange(ROWS) % 10 == 0

    def accused(rows: int, wrong: int) -> bool:
        flag = np.zeros(ROWS, dtype=bool)
        flag[np.flatnonzero(bad)[: rows - wrong]] = True
        flag[np.flatnonzero(~bad)[:wrong]] = True
        frame = measured.assign(late=flag.astype(int), defect=bad.astype(int))
        return [leak.column for leak in propose(save(tmp_path, frame)).leaks] == ["late"]

    assert accused(30, 0)
    assert not accused(29, 0)
    assert not accused(100, 1)  # precision .99


def test_common_class_needs_more_than_precision(tmp_path: Path, measured: pd.DataFrame) -> None:
    # Nine in ten rows are good anyway: a value that is always good tells little.
    bad = np.arange(ROWS) % 10 == 0
    frame = measured.assign(product=np.where(bad | (np.arange(ROWS) % 3 == 0), "P1", "P2"), defect=bad.astype(int))
    assert propose(save(tmp_path, frame)).leaks == []


def test_flags_whose_union_is_the_label_and_the_flag_like_them(tmp_path: Path, measured: pd.DataFrame) -> None:
    random = np.random.default_rng(5)
    bad = random.random(ROWS) < 0.06
    which = np.where(bad, random.integers(0, 4, ROWS), -1)
    frame = measured.assign(
        hot=(random.random(ROWS) < 0.5).astype(int),  # an honest 0/1 measurement
        f1=(which == 0).astype(int),
        f2=(which == 1).astype(int),
        f3=(which == 2).astype(int),
        f4=(which == 3).astype(int),
        odd=(random.random(ROWS) < 0.01).astype(int),  # says nothing, but is recorded beside them
        failure=bad.astype(int),
    )
    assert max(frame[["f1", "f2", "f3", "f4"]].sum()) < 30, "each alone is below the value rule"
    found = propose(save(tmp_path, frame))
    assert {leak.column: leak.rule for leak in found.leaks} == {
        "f1": "union", "f2": "union", "f3": "union", "f4": "union", "odd": "like",
    }  # fmt: skip
    assert "looks recorded after the fact" in said(found, "leak")
    assert "hot" in found.settings.data.numeric


def test_keeping_a_leak_and_the_line_that_does_it(tmp_path: Path, measured: pd.DataFrame) -> None:
    bad = bad_of(measured)
    frame = measured.assign(
        **{"late flag": bad.astype(int), "code": np.where(bad, "E", "-"), "defect": bad.astype(int)}
    )
    path = save(tmp_path, frame, "line one.csv")
    first = propose(path, label="defect")
    hint = first.leaks[0].keep_hint
    assert shlex.split(hint) == ["softad", "init", str(path), "--label", "defect", "--keep", "late flag", "--force"]
    assert hint in said(first, "leak")
    kept = propose(path, label="defect", keep=["late flag"])
    assert "late flag" in kept.settings.data.numeric
    assert "late flag" not in kept.settings.data.left_out
    assert "kept, as you asked" in said(kept, "leak")
    elsewhere = propose(path, label="defect", also=["--workspace", "plant 2"]).leaks[0].keep_hint
    assert shlex.split(elsewhere)[-3:] == ["--workspace", "plant 2", "--force"]
    again = next(leak for leak in kept.leaks if leak.column == "code")
    assert shlex.split(again.keep_hint)[-5:] == ["--keep", "late flag", "--keep", "code", "--force"]


def test_never_without_a_feature(tmp_path: Path) -> None:
    bad = np.arange(600) % 4 == 0
    random = np.random.default_rng(1)
    almost = np.where(bad, 1.0, 0.0) + np.where(random.random(600) < 0.004, 1.0, 0.0) + random.random(600) / 2
    frame = pd.DataFrame({"copy": bad * 2.0, "almost": almost.round(3), "defect": bad.astype(int)})
    found = propose(save(tmp_path, frame))
    assert found.settings.data.numeric == ["almost"]
    assert {leak.column for leak in found.leaks} == {"copy", "almost"}
    assert "no other feature would be left" in said(found, "leak")


def test_keep_must_name_a_column_that_can_be_a_feature(tmp_path: Path, measured: pd.DataFrame) -> None:
    path = save(tmp_path, measured.assign(same=1, defect=bad_of(measured).astype(int)))
    with pytest.raises(BadConfig, match="'defect' is the label and cannot be kept"):
        propose(path, keep=["defect"])
    with pytest.raises(BadConfig, match="'same' cannot be kept as a feature, it is the same value in every row: '1'"):
        propose(path, keep=["same"])
    with pytest.raises(BadConfig, match=r"no column 'torqe' \(given with --keep\); did you mean 'torque'"):
        propose(path, keep=["torqe"])
