"""Labels on their way into the table: from label files, from columns of inspections, and where the two contradict."""

# ruff: noqa: E501  (lines of files are easier to compare when they are not broken)

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from flows.errors import BadInput
from flows.store import current_labels

HEADER = "part,time,machine,x1,x2,ok\n"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def rows(first: int, last: int, *, x1: float = 1.0, ok: str = "0") -> str:
    return "".join(f"P{n},2026-04-01 10:{n % 60:02d},M{n % 3},{x1},{n},{ok}\n" for n in range(first, last + 1))


def history(site: Any, name: str = "P1") -> list[str]:
    """The labels that an id had, in order."""
    return site.store.read("labels", where=f"_id = '{name}'", order="_version")["label"].tolist()


def test_labels_come_later_change_and_wait(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 4, ok="")))
    assert site.store.count("labels") == 0
    path = site.file(
        "l.csv", "part,ok,labelled_at,inspector,probability\nP1,1,2026-04-03 09:00,Sato,0.5\nP2,0.0,,,\nP99,1,,,\n"
    )
    report = site.ingest(path)
    assert (report.kind, report.read, report.accepted, report.labels) == ("labels", 3, 3, 3)
    labels = current_labels(site.store).set_index("_id")
    assert labels["label"].to_dict() == {"P1": "1", "P2": "0", "P99": "1"}
    assert labels.loc["P1", ["inspector", "probability", "_time"]].tolist() == [
        "Sato",
        0.5,
        pd.Timestamp("2026-04-03T00:00Z"),
    ]
    assert labels.loc["P2", "_time"] == pd.Timestamp(NOW)
    changed = site.ingest(site.file("l2.csv", "part,ok\nP1,0\nP2,0\nP3,1\n"))
    assert (changed.accepted, changed.corrections, changed.duplicates) == (2, 1, 1)
    assert site.store.read("labels", where="_id = 'P1'", order="_version")["label"].tolist() == ["1", "0"]
    assert site.ingest(site.file("b.csv", HEADER + rows(99, 99, ok=""))).accepted == 1
    joined = site.store.sql("SELECT label FROM inspections JOIN labels USING (_id) WHERE _id = 'P99'")
    assert joined["label"].tolist() == ["1"]


def test_a_repeated_row_brings_a_label_that_was_missing_but_never_undoes_one(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 1, ok="0") + rows(2, 2, ok="")))
    site.ingest(site.file("l.csv", "part,ok\nP1,1\n"))
    # The same rows in a later export, with P2's label filled in and P1's as it was first.
    report = site.ingest(site.file("b.csv", HEADER + rows(1, 1, ok="0") + rows(2, 2, ok="1") + rows(3, 3)))
    assert (report.duplicates, report.accepted, report.labels) == (2, 1, 2)
    assert current_labels(site.store).set_index("_id")["label"].to_dict() == {"P1": "1", "P2": "1", "P3": "0"}


def test_a_label_file_is_told_by_its_folder_too(site: Any) -> None:
    site.drop("labels/export.csv", "part,ok,remark,batch\nP1,1,fine,7\n")
    [report] = site.inbox()
    assert (report.kind, report.status, report.labels) == ("labels", "accepted", 1)
    site.drop("labels/wrong.csv", "part,verdict\nP1,1\n")
    [refused] = site.inbox()
    assert refused.status == "refused"
    assert "column 'ok'" in refused.sentences[0]
    assert "that a label file needs is missing" in refused.sentences[0]


def test_a_label_file_with_a_column_more_is_sent_to_its_folder(site: Any) -> None:
    with pytest.raises(BadInput) as found:
        site.ingest(site.file("verdicts.csv", "part,ok,note\nP1,1,fine\n"))
    assert str(found.value) == (
        "verdicts.csv, row 1 (header): an id ('part') and a label ('ok'), but none of the features; a file of labels "
        "with other columns beside them belongs into inbox/labels of the workspace, a file of inspections needs 'x1', "
        "'x2', 'machine' too"
    )
    site.drop("labels/verdicts.csv", "part,ok,note\nP1,1,fine\n")
    assert [report.status for report in site.inbox()] == ["accepted"]
    with pytest.raises(BadInput, match="columns 'time', 'x2', 'machine' that the config names are missing"):
        site.ingest(site.file("torn.csv", "part,ok,x1\nP1,1,2\n"))
    with pytest.raises(BadInput, match=r"'machine' \(did the export rename it to 'Machine No'\?\)"):
        site.ingest(site.file("renamed.csv", "part,ok,Machine No\nP1,1,M1\n"))


def test_labels_of_a_regression_are_numbers(new_site: Callable[..., Any]) -> None:
    site = new_site(data={"label": "depth"}, task={"kind": "regression", "classes": []})
    report = site.ingest(site.file("a.csv", "part,time,machine,x1,x2,depth\nP1,2026-04-01,M1,1,1,2.50\nP2,2026-04-01,M1,1,1,deep\nP3,2026-04-01,M1,1,1,inf\n"))  # fmt: skip
    assert (report.accepted, report.labels) == (3, 1)
    label = site.store.read("labels").iloc[0]
    assert (label["label"], label["label_value"]) == ("2.50", 2.5)
    held = site.store.read("quarantine", order="_row")
    assert (held["kind"].tolist(), held["_id"].tolist()) == (["labels"] * 2, ["P2", "P3"])
    assert "'deep' is not a number" in held["reasons"][0]
    assert site.ingest(site.file("l.csv", "part,depth\nP1,2.5\nP2,3\n")).labels == 1


def test_one_hot_columns_become_one_label(new_site: Callable[..., Any]) -> None:
    site = new_site(
        data={"label": "fault", "label_columns": ["scratch", "stain"]}, task={"classes": ["scratch", "stain"]}
    )
    cells = ["1,0", "0,1", "0,0", "1,1", ",", "True,False", "2,0"]
    text = "part,time,machine,x1,x2,scratch,stain\n" + "".join(
        f"P{n},2026-04-01,M1,1,1,{c}\n" for n, c in enumerate(cells)
    )
    report = site.ingest(site.file("a.csv", text))
    assert (report.accepted, report.labels) == (7, 3)
    assert current_labels(site.store).set_index("_id")["label"].to_dict() == {
        "P0": "scratch",
        "P1": "stain",
        "P5": "scratch",
    }
    assert sorted(site.store.read("quarantine")["_id"]) == ["P2", "P3", "P6"]
    assert not {"scratch", "stain"} & set(site.store.columns("inspections").names)


def test_an_unknown_label_is_held_once_and_its_row_is_taken(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 2) + rows(3, 3, ok="scratch")))
    report = site.ingest(site.file("b.csv", HEADER + rows(1, 2) + rows(3, 3, ok="scratch") + rows(4, 4)))
    assert (report.duplicates, report.accepted) == (3, 1)
    held = site.store.read("quarantine")
    assert held["_id"].tolist() == ["P3"]
    assert json.loads(held["reasons"][0]) == [
        {"rule": "class", "column": "ok", "value": "scratch", "message": "'scratch' is no known class (0, 1); add it with `softad config add-class scratch`"}
    ]  # fmt: skip
    assert json.loads(held["record"][0])["ok"] == "scratch"
    assert site.store.count("inspections") == 4


def test_a_file_of_unknown_labels_only_is_taken_in(new_site: Callable[..., Any]) -> None:
    site = new_site(data={"id": None, "time": None, "window": {"rows": 50}})
    report = site.ingest(site.file("a.csv", "machine,x1,x2,ok\n" + "M1,1,1,weld\n" * 250))
    assert (report.accepted, report.quarantined, report.labels) == (250, 0, 0)
    assert sorted(site.store.read("quarantine")["_id"]) == sorted(site.store.read("inspections")["_id"])
    labels = site.ingest(site.file("l.csv", "_id,ok\nx,weld\ny,weld\n"))
    assert (labels.read, labels.quarantined) == (2, 2)


def test_a_corrected_row_does_not_undo_its_corrected_label(site: Any) -> None:
    site.ingest(site.file("a.csv", HEADER + rows(1, 1, ok="0")))
    site.ingest(site.file("l.csv", "part,ok\nP1,1\n"))
    # A measurement was mended; the label's column of the export still says what it said at first.
    report = site.ingest(site.file("b.csv", HEADER + rows(1, 1, x1=2, ok="0")))
    assert (report.accepted, report.corrections, report.labels) == (1, 1, 0)
    assert history(site) == ["0", "1"]
    assert (
        "1 row taken in without the label of this file; a label file gave another one, and its label is kept as given there"
        in report.sentences[0]
    )
    # The export follows: it now says what the label file said, and then something else again.
    assert site.ingest(site.file("c.csv", HEADER + rows(1, 1, x1=3, ok="1"))).labels == 1
    assert site.ingest(site.file("d.csv", HEADER + rows(1, 1, x1=4, ok="0"))).labels == 1
    assert history(site) == ["0", "1", "1", "0"]


def test_inspections_alone_change_their_label_as_often_as_they_like(site: Any) -> None:
    for turn, label in enumerate("0100"):
        site.ingest(site.file(f"{turn}.csv", HEADER + rows(1, 1, x1=turn, ok=label)))
    assert history(site) == ["0", "1", "0"]


def test_a_label_file_that_came_first_stands(site: Any) -> None:
    site.ingest(site.file("l.csv", "part,ok,labelled_at\nP1,1,2026-04-03 09:00\nP2,0,2026-04-03 09:00\n"))
    report = site.ingest(site.file("a.csv", HEADER + rows(1, 3, ok="0")))
    assert (report.accepted, report.labels) == (3, 1)
    assert [history(site, name) for name in ("P1", "P2", "P3")] == [["1"], ["0"], ["0"]]
    assert "1 row taken in without the label of this file" in report.sentences[0]
    assert site.ingest(site.file("l2.csv", "part,ok\nP1,0\n")).labels == 1
    assert history(site) == ["1", "0"]


def test_numbers_that_a_label_file_corrected_stand_too(new_site: Callable[..., Any]) -> None:
    site = new_site(data={"label": "depth"}, task={"kind": "regression", "classes": []})
    header = "part,time,machine,x1,x2,depth\n"
    site.ingest(site.file("a.csv", header + rows(1, 1, ok="2.50")))
    site.ingest(site.file("l.csv", "part,depth\nP1,3\n"))
    assert site.ingest(site.file("b.csv", header + rows(1, 1, x1=2, ok="2.5"))).labels == 0
    assert site.ingest(site.file("c.csv", header + rows(1, 1, x1=3, ok="2.6"))).labels == 1
    assert history(site) == ["2.50", "3", "2.6"]
