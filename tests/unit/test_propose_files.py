"""Proposals of files that are hard to read: other formats, odd cells, rare classes, many rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.errors import BadConfig, BadInput
from flows.propose import propose
from tests.unit.proposals import ROWS, bad_of, said, save


def test_same_proposal_from_csv_gzip_and_parquet(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(label=bad_of(measured).astype(float))
    plain = propose(save(tmp_path, frame.assign(label=frame["label"].astype(int))))
    frame.to_parquet(tmp_path / "parts.parquet")
    (tmp_path / "parts.csv.gz").write_bytes(gzip.compress((tmp_path / "parts.csv").read_bytes()))
    for other in ("parts.parquet", "parts.csv.gz"):
        assert propose(tmp_path / other).settings == plain.settings


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "parts.csv is empty"),
        ("a,label\n", "has a header and no rows"),
        ("label\n1\n0\n", r"row 1 \(header\): one column only, 'label'"),
        ("0.5,3,1\n0.7,2,0\n0.1,9,1\n", "row 1: this is no header"),
        ("torque,label\n1,0\n2,0\n", "label 'label' holds '0' in every row"),
        ("torque,判定\n1,\n2,\n", "label '判定' is empty in every row"),
        (
            "note,label\n" + "".join(f"part {n},{n % 2}\n" for n in range(90)),
            r"no column can be a feature \(note: free text",
        ),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "parts.csv"
    path.write_text(content)
    with pytest.raises((BadInput, BadConfig), match=sentence):
        propose(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there"):
        propose(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="is a folder"):
        propose(tmp_path)
    with pytest.raises(BadInput, match="/dev/null is no regular file; give a CSV"):
        propose(Path("/dev/null"))


@pytest.mark.parametrize("name", ["検査", "", "-a", "a/b", "a" * 65])
def test_name_that_no_folder_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig) as found:
        propose(tmp_path / "none.csv", name=name)
    assert str(found.value).startswith(f"--name {name!r}: it names folders") and "letters A to Z" in str(found.value)


def test_misprints_do_not_make_words_of_numbers(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.astype({"torque": object}).assign(label=bad_of(measured).astype(int))
    frame.loc[[3, 9], "torque"] = "err"
    path = save(tmp_path, frame)
    path.write_text(path.read_text() + "1,2\n")
    found = propose(path)
    assert "torque" in found.settings.data.numeric
    assert "'torque': 2 cells are no numbers, such as 'err'" in said(found, "rows")
    assert "1 rows have more or fewer cells than the header" in said(found, "rows")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([f"{n % 40},5" for n in range(ROWS)], "decimal comma"),
        ([f"{n + 1:,}.5" for n in range(ROWS)], "between thousands, such as"),
        ([f"{1000 + n * 7:,}" for n in range(ROWS)], "thousands or before decimals"),
        ([f"{n % 12 + 1:02d}/{n % 12 + 1:02d}/2026" for n in range(ROWS)], "could mean two days"),
        ([str(1_700_000_000 + 7 * n) for n in range(ROWS)], "a time written as a number"),
        (["k.A." if n % 5 == 0 else str(n % 40) for n in range(ROWS)], r"numbers, but 'k.A.' where there is none"),
        (["" if n % 100 else "x" for n in range(ROWS)], "empty in all but 12"),
    ],
)
def test_columns_that_need_a_better_export(
    tmp_path: Path, measured: pd.DataFrame, column: list[str], reason: str
) -> None:
    frame = measured.assign(timestamp=column, label=bad_of(measured).astype(int))
    data = propose(save(tmp_path, frame, sep=";")).settings.data
    assert pd.Series([data.left_out["timestamp"]]).str.contains(reason).all()
    assert data.time is None


def test_a_measurement_with_a_comma_is_no_id_though_all_its_values_differ(
    tmp_path: Path, measured: pd.DataFrame
) -> None:
    force = pd.Series(400_000 + 7 * np.arange(ROWS))
    frame = measured.assign(label=bad_of(measured).astype(int))
    for written in ((force / 1000).map("{:.3f}".format).str.replace(".", ","), force.map("{:,}".format)):
        frame.insert(0, "force_kN", written)
        found = propose(save(tmp_path, frame, sep=";"))
        assert found.settings.data.id is None
        assert "export them" in found.settings.data.left_out["force_kN"]
        # What is called an id is one, however it is written.
        named = propose(save(tmp_path, frame.rename(columns={"force_kN": "serial_number"}), sep=";"))
        assert named.settings.data.id == "serial_number"
        frame = frame.drop(columns="force_kN")


@pytest.mark.parametrize(("form", "order"), [("%d/%m/%Y %H:%M", "dmy"), ("%m/%d/%Y %H:%M", "mdy")])
def test_dates_that_prove_their_order_are_the_time(
    tmp_path: Path, measured: pd.DataFrame, form: str, order: str
) -> None:
    moments = pd.date_range("2026-01-05 06:00", periods=ROWS, freq="47min")
    frame = measured.assign(timestamp=moments.strftime(form), label=bad_of(measured).astype(int))
    found = propose(save(tmp_path, frame))
    assert (found.settings.data.time, found.settings.data.date_order) == ("timestamp", order)
    assert "from 2026-01-05 06:00 to" in said(found, "time")


def test_rare_classes_and_unlabelled_rows_are_mentioned(tmp_path: Path, measured: pd.DataFrame) -> None:
    label = pd.Series(np.where(bad_of(measured), "dent", "ok"))
    label[[1, 2]] = "burn"
    label[100:200] = None
    found = propose(save(tmp_path, measured.assign(label=label)))
    assert found.settings.task.classes == ["burn", "dent", "ok"]
    assert found.settings.task.normal == "ok"
    assert "few rows of 'burn' (2)" in said(found, "classes")
    assert "100 rows have no label yet" in said(found, "label")


def test_large_file_is_sampled_but_its_extremes_are_of_all_rows(
    tmp_path: Path, measured: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import propose as module
    from flows.proposal_sample import take_sample

    frame = measured.assign(part_id=np.arange(ROWS), label=bad_of(measured).astype(int)).astype({"label": str})
    frame.loc[501, "torque"] = 999.0
    frame.loc[[503], "label"] = "7"
    frame.loc[505, "load"] = np.nan
    frame.loc[507, "part_id"] = 506
    path = save(tmp_path, frame)
    sample = take_sample(path, limit=200)
    assert 100 <= len(sample.frame) <= 200
    assert sample.rows == ROWS
    assert not set(sample.frame["torque"]) & {"999.0"}
    monkeypatch.setattr(module, "take_sample", lambda data: take_sample(data, limit=200))
    found = propose(path)
    assert found.rows == ROWS
    assert found.settings.task.classes == ["0", "1", "7"]
    ranges = {
        rule["kwargs"]["column"]: rule["kwargs"]
        for rule in found.suite
        if "between" in rule["type"] and "column" in rule["kwargs"]
    }
    assert ranges["torque"]["max_value"] > 999
    assert "load is filled" not in {rule["meta"]["rule"] for rule in found.suite}
    assert "1 rows repeat an id" in said(found, "id")
