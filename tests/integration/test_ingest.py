"""Taking files in: every row once, corrections beside what they correct, labels whenever they come."""

# ruff: noqa: E501  (lines of files and rules are easier to compare when they are not broken)

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import identity
from flows.errors import BadConfig, BadInput, Refused
from flows.store import current_labels, current_rows

HEADER = "part,time,machine,x1,x2,ok\n"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def rows(first: int, last: int, *, x1: float = 1.0, ok: str = "0") -> str:
    return "".join(f"P{n},2026-04-01 10:{n % 60:02d},M{n % 3},{x1},{n},{ok}\n" for n in range(first, last + 1))


@pytest.fixture(params=[identity._FEW_ROWS, 0], ids=["looked up", "streamed"])
def joined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of few rows are compared with the tables in one way, those of many in another."""
    monkeypatch.setattr(identity, "_FEW_ROWS", request.param)


def test_a_file_is_taken_in_once(site: Any) -> None:
    path = site.file("a.csv", HEADER + rows(1, 250))
    report = site.ingest(path)
    assert (report.status, report.read, report.accepted, report.labels) == ("accepted", 250, 250, 250)
    assert report.sentences == []
    before = site.content()
    again = site.ingest(site.file("another name.csv", path.read_bytes()))
    assert (again.status, again.read) == ("already", 0)
    assert again.sentences == ["another name.csv was taken in already, as a.csv on 2026-05-01 12:00 UTC (250 rows); nothing was done."]  # fmt: skip
    assert site.content() == before
    assert path.exists()


def test_what_a_row_looks_like_in_the_table(site: Any) -> None:
    report = site.ingest(
        site.file("a.csv", "ok,part,time,machine,x1,x2,note\n1, P1 ,2026-04-01 09:30, M1 ,0.5,,as is \n")
    )
    row = site.store.read("inspections").iloc[0]
    assert (row["_id"], row["_seq"], row["_version"], row["_row"]) == ("P1", 0, 1, 1)
    assert (row["_time"], row["_at"]) == (pd.Timestamp("2026-04-01T00:30Z"), pd.Timestamp(NOW))
    assert (row["part"], row["time"], row["machine"], row["x1"], row["note"]) == (" P1 ", "2026-04-01 09:30", "M1", 0.5, "as is ")  # fmt: skip
    assert pd.isna(row["x2"])
    assert "ok" not in row
    assert row["_file"] == report.sha
    assert len(row["_hash"]) == 32
    label = site.store.read("labels").iloc[0]
    assert (label["_id"], label["label"], label["_time"]) == ("P1", "1", row["_time"])
    recorded = site.store.read("files").iloc[0]
    assert (recorded["status"], recorded["read"], recorded["kind"], recorded["name"]) == ("accepted", 1, "inspections", "a.csv")  # fmt: skip


def test_order_numbers_have_no_gap_and_corrections_keep_theirs(site: Any, joined: None) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 150) + "P900,bad date,M1,1,1,0\n"))
    report = site.ingest(site.file("b.csv", HEADER + rows(140, 145, x1=7.0) + rows(146, 160)))
    assert (report.read, report.accepted, report.corrections, report.duplicates) == (21, 16, 6, 5)
    assert report.sentences == ["b.csv: 6 rows corrected; the earlier versions are kept.", "b.csv: 5 rows skipped, the same content was there already."]  # fmt: skip
    current = current_rows(site.store)
    assert current["_seq"].tolist() == list(range(160))
    assert current["_id"].tolist() == [f"P{n}" for n in range(1, 161)]
    assert current["x1"].tolist() == [1.0] * 139 + [7.0] * 6 + [1.0] * 15
    assert site.store.count("inspections") == 166
    assert site.store.read("inspections", where="_id = 'P140'", order="_version")["x1"].tolist() == [1.0, 7.0]


def test_a_correction_of_a_correction_and_back(site: Any, joined: None) -> None:
    for number, x1 in enumerate((1.0, 2.0, 1.0)):
        report = site.ingest(site.file(f"{number}.csv", HEADER + rows(1, 3, x1=x1) + rows(10 + number, 10 + number)))
        assert report.corrections == (3 if number else 0)
    found = site.store.read("inspections", where="_id = 'P2'", order="_version")
    assert (found["x1"].tolist(), found["_version"].tolist()) == ([1.0, 2.0, 1.0], [1, 2, 3])


def test_the_same_rows_written_differently_are_the_same_rows(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + "P1,2026-04-01 10:00,M1,1.50,2,0\nP2,2026-04-01 10:00,M1,,3e1,1\n"))
    other = "x2;ok;x1;machine;time;part;empty\r\n2.0;0;1.5; M1;2026/4/1 10:00:00;P1;\r\n30;1;NaN;M1;2026-04-01T01:00Z;P2;\r\n"
    report = site.ingest(site.file("b.csv", other.encode("utf-8-sig")))
    assert (report.read, report.duplicates, report.labels) == (2, 2, 0)
    packed = site.ingest(site.file("c.csv.gz", gzip.compress((HEADER + rows(5, 5)).encode())))
    assert packed.accepted == 1


def test_parquet_and_csv_of_the_same_rows_are_the_same_rows(site: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "part": [1, 2, 3], "time": pd.to_datetime(["2026-04-01 10:00", "2026-04-01 11:00", "2026-04-02 00:00"]),
        "machine": pd.Categorical(["M1", "M2", "M1"]), "x1": [1, 2, 3], "x2": [0.5, None, 1e-3], "ok": [0.0, 1.0, None],
    })  # fmt: skip
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    assert site.ingest(tmp_path / "a.csv").accepted == 3
    report = site.ingest(tmp_path / "a.parquet")
    assert (report.read, report.duplicates, report.labels) == (3, 3, 0)
    assert current_labels(site.store)["label"].tolist() == ["0", "1"]


def test_japanese_files_of_a_japanese_plant(new_site: Callable[..., Any]) -> None:
    data = {
        "id": "管理番号", "time": "検査日時", "label": "判定", "numeric": ["寸法"], "categorical": ["設備"], "slices": ["設備"],
    }  # fmt: skip
    site = new_site(data=data, task={"classes": ["良", "不良"]})
    text = "管理番号,検査日時,設備,寸法,判定\nＡ１,2026年4月1日 9時05分,表面処理ソ,１２．５,良\nＡ２,2026/4/1 9:06,表,3,不良\n"
    report = site.ingest(site.file("検査.csv", text.encode("cp932")))
    assert (report.accepted, report.labels) == (2, 2)
    found = current_rows(site.store)
    assert found["寸法"].tolist() == [12.5, 3.0]
    assert found["_time"].tolist() == [pd.Timestamp("2026-04-01T00:05Z"), pd.Timestamp("2026-04-01T00:06Z")]
    assert site.ingest(site.file("検査-utf8.csv", text)).duplicates == 2


def test_rows_without_an_id_are_known_by_content_and_count(new_site: Callable[..., Any], joined: None) -> None:
    site = new_site(data={"id": None, "time": None, "window": {"rows": 50}})
    header, once, twice = "machine,x1,x2,ok\n", "M1,1,1,0\n", "M2,2,2,1\n"
    first = site.ingest(site.file("a.csv", header + once + twice + twice))
    assert (first.accepted, first.labels) == (3, 3)
    # Delivered again with more rows, in another order: only what is more is new.
    second = site.ingest(site.file("b.csv", header + twice + "M3,3,3,1\n" + twice + once + twice))
    assert (second.read, second.accepted, second.duplicates, second.labels) == (5, 2, 3, 2)
    found = current_rows(site.store)
    assert found["_seq"].tolist() == [0, 1, 2, 3, 4]
    assert found["_id"].is_unique
    assert sorted(name.rsplit("-", 1)[1] for name in found["_id"]) == ["1", "1", "1", "2", "3"]
    assert found["_time"].isna().all()


def test_the_inbox_is_emptied_into_the_archive(site: Any) -> None:
    site.drop("b.csv", HEADER + rows(3, 4))
    site.drop("a.csv", HEADER + rows(1, 2))
    site.drop("labels/l.csv", "part,ok\nP1,1\n")
    for ignored in (".hidden.csv", "c.csv.part", "d.tmp"):
        site.drop(ignored, "half a fi")
    assert [report.name for report in site.inbox()] == ["a.csv", "b.csv", "l.csv"]
    assert sorted(Path(path).name for path in site.lying()) == [".hidden.csv", "c.csv.part", "d.tmp"]
    archived = {str(path.relative_to(site.workspace.archive)) for path in site.workspace.archive.rglob("*.csv")}
    assert archived == {"a.csv", "b.csv", "labels/l.csv"}
    assert site.inbox() == []


def test_the_archive_never_loses_a_file(site: Any) -> None:
    for number in (1, 2):
        site.drop("week.csv", HEADER + rows(number, number))
        assert site.inbox()[0].status == "accepted"
    site.drop("week.csv", HEADER + rows(2, 2))
    assert site.inbox()[0].status == "already"
    kept = [path.read_text() for path in site.workspace.archive.iterdir()]
    assert sorted(kept) == sorted([HEADER + rows(1, 1), HEADER + rows(2, 2)])
    assert site.lying() == {}


def test_a_refused_file_stays_and_is_told_of_once_for_each_config(new_site: Callable[..., Any]) -> None:
    site = new_site(ingest={"max_bad_share": 0.1})
    site.drop("bad.csv", HEADER + rows(1, 5) + "P7,2026-04-01,M1,abc,1,0\n")
    site.drop("good.csv", HEADER + rows(11, 12))
    lying = site.lying()
    assert [report.status for report in site.inbox()] == ["refused", "accepted"]
    assert [Path(path).name for path in site.lying()] == ["bad.csv"]
    assert site.inbox() == []
    assert set(site.lying().items()) <= set(lying.items())
    refusals = site.store.read("files", where="status = 'refused'")
    assert refusals["read"].tolist() == [0]
    assert "1 of 6 rows are bad (17%, allowed is 10%)" in refusals["message"][0]
    site.settings = site.settings.model_copy(
        update={"ingest": site.settings.ingest.model_copy(update={"max_bad_share": 0.2})}
    )
    assert [report.status for report in site.inbox()] == ["accepted"]
    assert site.sums() == {"files": 2, "inspections": 7, "quarantine": 1, "labels": 7}


def test_expectations_that_change_give_a_refused_file_another_chance(new_site: Callable[..., Any]) -> None:
    rule = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x2", "max_value": 1}}
    site = new_site(rules=[rule])
    site.drop("a.csv", HEADER + rows(1, 9))
    assert site.inbox()[0].status == "refused"
    assert site.inbox() == []
    rules = site.folder / "rules.yaml"
    rules.write_text(rules.read_text().replace("max_value: 1", "max_value: 100"))
    assert site.inbox()[0].status == "accepted"


def test_files_wait_for_one_another(site: Any) -> None:
    path = site.file("a.csv", HEADER + rows(1, 3))
    with site.workspace.lock("ingest"), pytest.raises(Refused), site.workspace.lock("ingest", wait=False):
        pass
    assert site.ingest(path).accepted == 3
    assert not list((site.workspace.runtime / "staging").rglob("*.arrow"))


def test_two_processes_on_one_inbox_take_each_file_once(site: Any) -> None:
    for number in range(6):
        site.drop(f"{number}.csv", HEADER + rows(number * 50, number * 50 + 70))
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from flows.ingest import ingest_inbox; from flows.settings import load_settings\n"
        "from flows.store import Store; from flows.workspace import Workspace\n"
        "settings = load_settings(Path(sys.argv[1])); place = Workspace.open(Path(sys.argv[2]), settings=settings)\n"
        "reports = ingest_inbox(settings, Store(place.tables), place, now=datetime(2026, 5, 1, tzinfo=UTC))\n"
        "print(*(f'{report.name}:{report.status}' for report in reports))"
    )
    command = [sys.executable, "-c", code, str(site.folder / "config.yaml"), str(site.workspace.root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted([*said[0], *said[1]]) == [f"{number}.csv:accepted" for number in range(6)]
    assert site.lying() == {}
    current = current_rows(site.store)
    assert (len(current), current["_seq"].tolist()) == (321, list(range(321)))
    assert site.store.count("inspections") == 321


def test_nothing_of_a_killed_ingest_is_left_in_staging(site: Any) -> None:
    left = site.workspace.runtime / "staging" / site.workspace.model / "file-old"
    left.mkdir(parents=True)
    (left / "000000.arrow").write_bytes(b"x" * 1000)
    site.ingest(site.file("a.csv", HEADER + rows(1, 3)))
    assert not left.exists()


def test_a_new_column_is_kept_and_named(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 2)))
    report = site.ingest(site.file("b.csv", "part,time,machine,x1,x2,ok,operator\nP9,2026-04-01,M1,1,1,0,Sato\n"))
    assert report.sentences == ["The column 'operator' is new; kept, and not used until the config names it."]
    assert site.store.read("inspections", order="_id")["operator"].fillna("").tolist() == ["", "", "Sato"]
    # Without the column again: the rows are what they were.
    assert site.ingest(site.file("c.csv", HEADER + rows(1, 3))).duplicates == 2


def test_a_column_that_changes_its_role_is_refused_before_anything_is_written(new_site: Callable[..., Any]) -> None:
    site = new_site()
    site.ingest(site.file("a.csv", HEADER + rows(1, 2)))
    other = new_site(name="other", data={"numeric": ["x1"], "categorical": ["machine", "x2"]})
    other.workspace, before = site.workspace, site.content()
    with pytest.raises(
        BadConfig, match="column 'x2' of table inspections was kept as a number so far and would now be text"
    ):
        other.ingest(site.file("b.csv", HEADER + rows(3, 4)))
    assert site.content() == before


def test_a_file_that_is_bad_from_its_start_is_not_read_to_its_end(site: Any) -> None:
    text = HEADER + rows(1, 400).replace(",1.0,", ",one,") + rows(401, 700)
    with pytest.raises(BadInput) as found:
        site.ingest(site.file("a.csv", text))
    sentence = str(found.value)
    assert sentence.startswith(
        "a.csv: 400 of the first 400 rows are bad (allowed is 50% of the whole file), so the whole"
    )
    assert site.sums()["inspections"] == 0


RULES: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x1", "min_value": 0, "max_value": 10}, "meta": {"rule": "x1 range"}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x2"}, "meta": {"rule": "x2 filled"}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "machine", "value_set": ["M0", "M1", "M2"]}, "severity": "warning", "meta": {"rule": "machines"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "time", "min_value": "2026-01-01"}, "meta": {"rule": "this year"}},
    {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "serial"}, "meta": {"rule": "serial once"}},
    {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["batch", "place"]}, "meta": {"rule": "place once"}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "flag", "value_set": [0, 1]}, "meta": {"rule": "flag"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x2", "max_value": 100, "mostly": 0.9}, "meta": {"rule": "x2 mostly small"}},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 3}, "meta": {"rule": "rows"}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "x1", "max_value": 8}, "meta": {"rule": "x1 mean"}},
    {"type": "expect_column_to_exist", "kwargs": {"column": "serial"}, "meta": {"rule": "has serial"}},
]  # fmt: skip


def ruled(n: int, **cells: object) -> str:
    row: dict[str, object] = {"part": f"P{n}", "time": "2026-04-01", "machine": "M1", "x1": 1, "x2": 1, "ok": 0, "serial": f"S{n}",
                              "batch": n // 5, "place": n % 5, "flag": n % 2} | cells  # fmt: skip
    return ",".join(map(str, row.values())) + "\n"


RULED = "part,time,machine,x1,x2,ok,serial,batch,place,flag\n"


def test_every_failing_row_is_held_with_rule_column_and_value(new_site: Callable[..., Any]) -> None:
    site = new_site(rules=RULES)
    wrong: dict[int, dict[str, object]] = {
        3: {"x1": 11}, 120: {"x2": ""}, 130: {"machine": "M9"}, 140: {"time": "2025-12-31"}, 205: {"serial": "S7"},
        210: {"batch": 2, "place": 0}, 220: {"flag": 2}, 230: {"flag": "yes"}, 240: {"x1": -1, "x2": "", "flag": 9},
    }  # fmt: skip
    report = site.ingest(site.file("a.csv", RULED + "".join(ruled(n, **wrong.get(n, {})) for n in range(1, 301))))
    held = site.store.read("quarantine", order="_row")
    found = {
        row["_id"]: [(r["rule"], r["column"], r["value"]) for r in json.loads(row["reasons"])]
        for _, row in held.iterrows()
    }
    assert found == {
        "P3": [("x1 range", "x1", 11.0)],
        "P7": [("serial once", "serial", "S7")],
        "P10": [("place once", "batch, place", ["2", "0"])],
        "P120": [("x2 filled", "x2", None)],
        "P140": [("this year", "time", "2025-12-30 15:00:00+00:00")],
        "P205": [("serial once", "serial", "S7")],
        "P210": [("place once", "batch, place", ["2", "0"])],
        "P220": [("flag", "flag", 2.0)],
        "P230": [("number", "flag", "yes")],
        "P240": [("x1 range", "x1", -1.0), ("x2 filled", "x2", None), ("flag", "flag", 9.0)],
    }
    assert (report.read, report.accepted, report.quarantined) == (300, 290, 10)
    assert json.loads(held["record"][0]) == {"part": "P3", "time": "2026-04-01", "machine": "M1", "x1": "11", "x2": "1", "ok": "0", "serial": "S3", "batch": "0", "place": "3", "flag": "1"}  # fmt: skip
    assert (
        "a.csv: warning, the rule 'machines' does not hold (1 row, first row 130); the rows were taken in."
        in report.sentences
    )


@pytest.mark.parametrize("large", [20, 45])
def test_a_share_that_may_fail_is_taken_over_the_whole_file(new_site: Callable[..., Any], large: int) -> None:
    """20 of 300 fail, all in the same chunk: less than a tenth, although most of that chunk."""
    site = new_site(rules=RULES)
    rows = "".join(ruled(n, **({"x2": 500} if 110 <= n < 110 + large else {})) for n in range(1, 301))
    report = site.ingest(site.file("a.csv", RULED + rows))
    assert report.quarantined == (0 if large == 20 else 45)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (ruled(1) + ruled(2), "the rule 'rows' about the whole file does not hold (found 2)"),
        (
            "".join(ruled(n, x1=9) for n in range(1, 250)),
            "the rule 'x1 mean' about the whole file does not hold (found 9)",
        ),
    ],
)
def test_a_file_that_breaks_a_rule_about_the_whole_is_held_back(
    new_site: Callable[..., Any], content: str, sentence: str
) -> None:
    site = new_site(rules=RULES)
    with pytest.raises(BadInput) as found:
        site.ingest(site.file("a.csv", RULED + content))
    assert sentence in str(found.value)
    assert site.sums() == {"files": 0, "inspections": 0, "quarantine": 0, "labels": 0}


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"type": "expect_column_values_to_match_like_pattern", "kwargs": {"column": "serial", "like_pattern": "S%"}, "meta": {"rule": "like"}}, "the rule 'like' could not be checked"),
        ({"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "x1"}}, "did you mean 'expect_column_values_to_be_between'?"),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "x1", "min": 2}}, "has an unknown argument 'min'"),
        ({"type": "expect_column_values_to_match_regex", "kwargs": {"column": "serial", "regex": "("}, "meta": {"rule": "broken"}}, "the rule 'broken' could not be checked"),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "x1", "min_value": 0}, "severity": "fatal"}, "severity must be critical, warning or info"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_checked_is_an_error_and_never_a_pass(
    new_site: Callable[..., Any], rule: dict[str, Any], sentence: str
) -> None:
    site = new_site(rules=[rule])
    with pytest.raises(BadConfig) as found:
        site.ingest(site.file("a.csv", RULED + "".join(map(ruled, range(1, 10)))))
    assert sentence in str(found.value)
    assert site.store.versions() == {}


def test_a_rule_about_the_header(new_site: Callable[..., Any]) -> None:
    rules = [{"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["part", "time"], "exact_match": False}, "meta": {"rule": "has part"}},
             {"type": "expect_column_to_exist", "kwargs": {"column": "operator"}, "meta": {"rule": "who"}, "severity": "warning"},
             {"type": "expect_table_column_count_to_equal", "kwargs": {"value": 6}, "meta": {"rule": "six"}}]  # fmt: skip
    site = new_site(rules=rules)
    report = site.ingest(site.file("a.csv", HEADER + rows(1, 3)))
    assert report.sentences == [
        "a.csv: warning, the rule 'who' does not hold (the file as a whole); the rows were taken in."
    ]
    with pytest.raises(BadInput, match=r"b\.csv: the rule 'six' about the whole file does not hold \(found 7\)"):
        site.ingest(site.file("b.csv", "part,time,machine,x1,x2,ok,more\nP9,2026-04-01,M1,1,1,0,x\n"))


def test_a_rule_about_a_column_that_the_file_lacks(new_site: Callable[..., Any]) -> None:
    site = new_site(rules=RULES)
    with pytest.raises(BadInput, match=r"column 'flag' that the expectations in rules.yaml check is missing"):
        site.ingest(site.file("a.csv", "part,time,machine,x1,x2,ok,serial,batch,place\nP1,2026-04-01,M1,1,1,0,S,1,1\n"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    deliveries=st.lists(
        st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["1", "2", "abc", ""]), st.sampled_from(["0", "1", "", "?"])), min_size=1, max_size=30),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_whatever_is_delivered_no_row_is_lost(
    new_site: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, deliveries: list[list[tuple[int, str, str]]]
) -> None:
    name = tmp_path_factory.mktemp("site").name
    site = new_site(name=name, ingest={"max_bad_share": 1.0, "chunk_rows": 100})
    for number, delivery in enumerate(deliveries):
        lines = [f"P{part},2026-04-01,M1,{x1},1,{ok}" for part, x1, ok in delivery]
        report = site.ingest(site.file(f"{number}.csv", HEADER + "\n".join(lines) + "\n"))
        if report.status == "already":
            continue
        assert report.read == len(lines) == report.accepted + report.quarantined + report.duplicates
        mine = f"_file = '{report.sha}'"
        assert site.store.count("inspections", mine) == report.accepted
        assert site.store.count("quarantine", f"{mine} AND kind = 'inspections'") == report.quarantined
        assert site.store.count("labels", mine) == report.labels
        # Rows of one id that differ are held together; of one id with one content one row is taken.
        ids = site.store.read("inspections", columns=["_id"], where=mine)["_id"]
        assert ids.is_unique
    current = current_rows(site.store)
    assert current["_seq"].tolist() == list(range(len(current)))
    versions = site.store.sql("SELECT _id, count(*) AS n, max(_version) AS top FROM inspections GROUP BY _id")
    assert (versions["n"] == versions["top"]).all()
    shutil.rmtree(site.folder)


def test_a_young_file_is_looked_at_twice(new_site: Callable[..., Any]) -> None:
    site = new_site(ingest={"settle_seconds": 0.4})
    path = site.file("a.csv", HEADER + rows(1, 3))
    begun = time.perf_counter()
    assert site.ingest(path).accepted == 3
    assert time.perf_counter() - begun >= 0.3
    old = site.file("b.csv", HEADER + rows(4, 6))
    past = (datetime.now(UTC) - timedelta(hours=1)).timestamp()
    os.utime(old, (past, past))
    assert site.ingest(old).accepted == 3


@pytest.mark.real_data
def test_the_milling_machine_data_as_it_is(new_site: Callable[..., Any], real_data: Path) -> None:
    data = {
        "id": "UID", "time": None, "label": "Machine failure", "categorical": ["Type"], "slices": ["Type"],
        "numeric": ["Air temperature [K]", "Process temperature [K]", "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]"],
        "window": {"rows": 500},
    }  # fmt: skip
    site = new_site(data=data)
    path = real_data / "ai4i2020" / "ai4i2020.csv"
    report = site.ingest(path)
    assert (report.read, report.accepted, report.labels) == (10_000, 10_000, 10_000)
    given, found = pd.read_csv(path, encoding="utf-8-sig"), current_rows(site.store)
    assert found["_id"].tolist() == given["UID"].astype(str).tolist()
    assert (found["Torque [Nm]"] == given["Torque [Nm]"]).all()
    labels = current_labels(site.store).set_index("_id").loc[found["_id"], "label"]
    assert (labels.astype(int).to_numpy() == given["Machine failure"].to_numpy()).all()
