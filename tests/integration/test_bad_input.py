"""One case after the other of what can be wrong with a file: status, sentence, sums of all tables, the inbox as it was.

Before each case a good file of three rows was taken in, so that "nothing lost" can be seen.
"""

# ruff: noqa: E501  (lines of files and sentences are easier to compare when they are not broken)

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.errors import BadInput, PipelineError

HEADER = "part,time,machine,x1,x2,ok\n"
GOOD = "A1,2026-04-01 10:00,M1,1,1,0\nA2,2026-04-01 10:01,M2,2,2,1\nA3,2026-04-01 10:02,M1,3,3,0\n"
MORE = "B1,2026-04-02 10:00,M1,1,1,0\nB2,2026-04-02 10:01,M2,2,2,1\nB3,2026-04-02 10:02,M1,3,3,0\n"
BEFORE = {"files": 1, "inspections": 3, "quarantine": 0, "labels": 3}


@dataclass(frozen=True)
class Whole:
    """A file that is refused as a whole."""

    name: str
    content: bytes
    sentence: str


@dataclass(frozen=True)
class Part:
    """A file that is taken in, apart from some rows or labels."""

    content: str
    sentence: str
    reason: dict[str, Any] | None
    accepted: int
    quarantined: int = 0
    duplicates: int = 0
    labels: int = 0
    held: int = 0
    corrections: int = 0


WHOLE = {
    "empty file": Whole("b.csv", b"", r"b\.csv is empty: there is nothing to read; export it again"),
    "blank lines": Whole("b.csv", b"\r\n\r\n", r"b\.csv is empty: it holds blank lines only; export it again"),
    "header only": Whole("b.csv", HEADER.encode(), r"b\.csv has a header but no rows; export it again"),
    "missing column": Whole("b.csv", b"part,time,machine,x_1,ok\nB1,2026-04-02,M1,1,0\n", r"b\.csv, row 1 \(header\): columns 'x1' \(did the export rename it to 'x_1'\?\), 'x2'.* that the config names are missing; the file has 'part', 'time', 'machine', 'x_1', 'ok'; export it with the same columns as before, or mend the config"),
    "no header": Whole("b.csv", MORE.encode(), r"b\.csv, row 1 \(header\): none of the columns that the config names is there, it reads 'B1', .*; add a first row with the names of the columns"),
    "two columns of one name": Whole("b.csv", b"part,time,machine,x1,x2,x1,ok\nB1,2026-04-02,M1,1,1,1,0\n", r"b\.csv, row 1 \(header\), columns 4 and 6: two columns are called 'x1'; rename one of them"),
    "a name of the system": Whole("b.csv", b"part,time,machine,x1,x2,_row,ok\nB1,2026-04-02,M1,1,1,1,0\n", r"b\.csv, row 1 \(header\): '_row' is a name that the system uses itself; rename the column"),
    "too many bad rows": Whole("b.csv", (HEADER + MORE.replace(",1,1,", ",abc,1,").replace(",2,2,", ",,x,")).encode(), r"b\.csv: 2 of 3 rows are bad \(67%, allowed is 50%\), so the whole file is held back and nothing of it was taken in; most often column 'x1', rule 'number' \(1 row\); first row 1, column 'x1': 'abc' is not a number; mend the export, or raise ingest\.max_bad_share"),
    "truncated gzip": Whole("b.csv.gz", gzip.compress((HEADER + MORE * 500).encode())[:-30], r"b\.csv\.gz: the gzip file ends in its middle, so rows are missing; copy it again"),
    "damaged gzip": Whole("b.csv.gz", gzip.compress((HEADER + MORE).encode())[:-8] + b"\1" * 8, r"b\.csv\.gz: the gzip file is damaged .*; copy it again"),
    "binary named .csv": Whole("b.csv", b"\x7fELF\x02\x01\x01\x00\x00\x00" + bytes(range(256)) * 40, r"b\.csv, byte 8: this is binary data, no text, whatever its name says; export the table as CSV or Parquet"),
    "image named .csv": Whole("b.csv", b"\x89PNG\r\n\x1a\n" + b"\x00" * 99, r"b\.csv, byte 9: this is binary data"),
    "workbook": Whole("b.xlsx", b"PK\x03\x04" + b"\x00" * 99, r"b\.xlsx is an Excel workbook or a zip archive, no CSV or Parquet; save the table as CSV"),
    "invalid UTF-8": Whole("b.csv", (HEADER + MORE).encode() + b"B4,2026-04-02,M\xff,1,1,0\n", r"b\.csv, line 5, byte 16: 0xff is neither UTF-8 nor Japanese CP932 text; save the file as UTF-8 and try again"),
    "Latin-1": Whole("b.csv", (HEADER + MORE.replace("M1", "Gerät")).encode("latin-1"), r"b\.csv, line 2, byte 24: 0xe4 is neither UTF-8 nor Japanese CP932 text"),
    "EUC-JP": Whole("b.csv", (HEADER + MORE.replace("M1", "不良")).encode("euc_jp"), r"b\.csv: the file is in EUC-JP; save it as UTF-8 \(or CP932\) and try again"),
    "UTF-16": Whole("b.csv", (HEADER + MORE).encode("utf-16"), r"b\.csv, line 1, byte 1: the file is in UTF-16; save it as UTF-8 \(or CP932\) and try again"),
    "open quotation mark": Whole("b.csv", (HEADER + MORE + 'B4,2026-04-02,"M1,1,1,0\nB5,2026-04-02,M1,1,1,0\n').encode(), r"b\.csv, row 4: a quotation mark is opened and never closed, so the rest of the file is one cell; mend the row and try again"),
    "cut off Parquet": Whole("b.parquet", b"PAR1" + b"\x15\x04" * 60, r"b\.parquet is a Parquet file that is cut off or damaged; copy it again"),
    "no Parquet": Whole("b.parquet", (HEADER + MORE).encode(), r"b\.parquet is named \.parquet, but is no Parquet file; export it again"),
    "label file without ids": Whole("labels/b.csv", b"ok,inspector\n1,Sato\n", r"b\.csv, row 1 \(header\): column 'part' .*that a label file needs is missing"),
}  # fmt: skip

PART = {
    "extra column": Part("part,time,machine,x1,x2,ok,note\n" + MORE.replace(",0\n", ",0,n\n").replace(",1\n", ",1,n\n"), r"The column 'note' is new; kept, and not used until the config names it\.", None, accepted=3, labels=3),
    "the same row twice": Part(HEADER + MORE + "B1,2026-04-02 10:00,M1,1,1,0\n", r"b\.csv: 1 row skipped, the same content was there already\.", None, accepted=3, duplicates=1, labels=3),
    "one id with two contents in a file": Part(HEADER + MORE + "B1,2026-04-02 10:00,M1,9,1,0\n", r"b\.csv: 2 rows of 4 are in quarantine; first row 1, column 'part': the id 'B1' stands in row 4 too, with other content; see `softad quarantine list`\.", {"rule": "same id", "column": "part", "value": "B1", "message": "the id 'B1' stands in row 4 too, with other content"}, accepted=2, quarantined=2, labels=2),
    "one id with two labels in a file": Part(HEADER + MORE + "B2,2026-04-02 10:01,M2,2,2,0\n", r"row 2, column 'part': the id 'B2' stands in row 4 too, with other content", {"rule": "same id", "column": "part", "value": "B2", "message": "the id 'B2' stands in row 4 too, with other content"}, accepted=2, quarantined=2, labels=2),
    "one id good and bad in a file": Part(HEADER + MORE + "B1,never,M1,1,1,0\n", r"2 rows of 4 are in quarantine", {"rule": "same id", "column": "part", "value": "B1", "message": "the id 'B1' stands in another row too, which is bad"}, accepted=2, quarantined=2, labels=2),
    "a known id with other content": Part(HEADER + MORE + "A1,2026-04-01 10:00,M1,5,1,0\n", r"b\.csv: 1 row corrected; the earlier versions are kept\.", None, accepted=4, corrections=1, labels=3),
    "no id": Part(HEADER + MORE + " ,2026-04-02 10:00,M1,1,1,0\n", r"row 4, column 'part': part is empty, so the row has no id", {"rule": "id", "column": "part", "value": None, "message": "part is empty, so the row has no id"}, accepted=3, quarantined=1, labels=3),
    "letters in a number column": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,abc,1,0\n", r"b\.csv: 1 row of 4 is in quarantine; first row 4, column 'x1': 'abc' is not a number; see `softad quarantine list`\.", {"rule": "number", "column": "x1", "value": "abc", "message": "'abc' is not a number"}, accepted=3, quarantined=1, labels=3),
    "decimal comma": Part(HEADER + MORE + 'B4,2026-04-02 10:00,M1,"1,5",1,0\n', r"row 4, column 'x1': '1,5' is not a number; write it with a decimal point", {"rule": "number", "column": "x1", "value": "1,5", "message": "'1,5' is not a number; write it with a decimal point"}, accepted=3, quarantined=1, labels=3),
    "infinity": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,-Infinity,1,0\n", r"row 4, column 'x1': '-Infinity' is infinite", {"rule": "number", "column": "x1", "value": "-Infinity", "message": "'-Infinity' is infinite"}, accepted=3, quarantined=1, labels=3),
    "larger than any number": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,1,1e999,0\n", r"row 4, column 'x2': '1e999' is infinite", {"rule": "number", "column": "x2", "value": "1e999", "message": "'1e999' is infinite"}, accepted=3, quarantined=1, labels=3),
    "NaN is a missing value": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,NaN, ,0\n", r"^$", None, accepted=4, labels=4),
    "a date that does not parse": Part(HEADER + MORE + "B4,2026-02-30 10:00,M1,1,1,0\n", r"row 4, column 'time': '2026-02-30 10:00' is not a date that can be read; write it as 2026-11-24 09:30:00", {"rule": "time", "column": "time", "value": "2026-02-30 10:00", "message": "'2026-02-30 10:00' is not a date that can be read; write it as 2026-11-24 09:30:00"}, accepted=3, quarantined=1, labels=3),
    "a date that could be two": Part(HEADER + MORE + "B4,04/02/2026,M1,1,1,0\n", r"row 4, column 'time': '04/02/2026' is not a date that can be read", {"rule": "time", "column": "time", "value": "04/02/2026", "message": "'04/02/2026' is not a date that can be read; write it as 2026-11-24 09:30:00"}, accepted=3, quarantined=1, labels=3),
    "no date": Part(HEADER + MORE + "B4,,M1,1,1,0\n", r"row 4, column 'time': time is empty, so the row belongs to no window", {"rule": "time", "column": "time", "value": None, "message": "time is empty, so the row belongs to no window"}, accepted=3, quarantined=1, labels=3),
    "a date in another age": Part(HEADER + MORE + "B4,9999-12-31,M1,1,1,0\n", r"'9999-12-31' is outside the years 1970 to 2099", {"rule": "time", "column": "time", "value": "9999-12-31", "message": "'9999-12-31' is outside the years 1970 to 2099"}, accepted=3, quarantined=1, labels=3),
    "an unknown label": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,1,1,scratch\n", r"b\.csv: 1 label is in quarantine, while the rows were taken in without; first row 4, column 'ok': 'scratch' is no known class \(0, 1\); add it with `softad config add-class scratch`; see `softad quarantine list`\.", {"rule": "class", "column": "ok", "value": "scratch", "message": "'scratch' is no known class (0, 1); add it with `softad config add-class scratch`"}, accepted=4, labels=3, held=1),
    "too few cells": Part(HEADER + MORE + "B4,2026-04-02 10:00\n", r"first row 4: the row has 2 cells, the header has 6", {"rule": "cells", "column": "", "value": 2, "message": "the row has 2 cells, the header has 6"}, accepted=3, quarantined=1, labels=3),
    "too many cells": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,1,1,0,0,0\n", r"first row 4: the row has 8 cells, the header has 6", {"rule": "cells", "column": "", "value": 8, "message": "the row has 8 cells, the header has 6"}, accepted=3, quarantined=1, labels=3),
    "a broken rule": Part(HEADER + MORE + "B4,2026-04-02 10:00,M1,500,1,0\n", r"row 4, column 'x1': x1 is 500, allowed is up to 100", {"rule": "x1 in range", "column": "x1", "value": 500.0, "message": "x1 is 500, allowed is up to 100"}, accepted=3, quarantined=1, labels=3),
}  # fmt: skip

RULES = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x1", "max_value": 100}, "meta": {"rule": "x1 in range"}}]  # fmt: skip


@pytest.fixture
def plant(new_site: Callable[..., Any]) -> Any:
    made = new_site(rules=RULES)
    made.ingest(made.file("a.csv", HEADER + GOOD))
    assert made.sums() == BEFORE
    return made


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_a_file_that_is_refused_leaves_everything_as_it_was(plant: Any, case: Whole) -> None:
    path = plant.drop(case.name, case.content)
    lying = plant.lying()
    [report] = plant.inbox()
    assert (report.status, report.read, report.accepted) == ("refused", 0, 0)
    assert re.search(case.sentence, report.sentences[0]), report.sentences[0]
    assert plant.sums() == BEFORE
    assert plant.lying() == lying
    refusals = plant.store.read("files", where="status = 'refused'")
    assert refusals["message"].tolist() == report.sentences
    assert refusals[["read", "accepted", "quarantined", "duplicates"]].to_numpy().sum() == 0
    # The same file named on the command line.
    if path.parent.name != "labels":
        with pytest.raises(BadInput, match=case.sentence) as found:
            plant.ingest(path)
        assert found.value.exit_status == 3
    # A good file after it is not held up.
    plant.drop("c.csv", HEADER + MORE)
    assert [item.status for item in plant.inbox()] == ["accepted"]
    assert plant.sums() == {"files": 2, "inspections": 6, "quarantine": 0, "labels": 6}


@pytest.mark.parametrize("case", PART.values(), ids=PART)
def test_a_file_with_bad_rows_is_taken_in_without_them(plant: Any, case: Part) -> None:
    path = plant.file("b.csv", case.content)
    report = plant.ingest(path)
    assert (report.status, report.accepted, report.quarantined, report.duplicates, report.corrections, report.labels) == (
        "accepted", case.accepted, case.quarantined, case.duplicates, case.corrections, case.labels,
    )  # fmt: skip
    assert report.read == case.content.count("\n") - 1
    assert re.search(case.sentence, " ".join(report.sentences)), report.sentences
    assert plant.sums() == {
        "files": 2, "inspections": 3 + case.accepted, "quarantine": case.quarantined + case.held, "labels": 3 + case.labels,
    }  # fmt: skip
    assert path.read_text() == case.content
    held = plant.store.read("quarantine", order="_row")
    if case.reason is not None:
        assert case.reason in json.loads(held["reasons"].iloc[0])
        lines = case.content.splitlines()
        for _, row in held.iterrows():
            record = json.loads(row["record"])
            raw = lines[row["_row"]]
            assert record[""] == raw if "" in record else ("" if record["part"] is None else record["part"]) in raw
    assert (held["state"] == "held").all()


def test_a_file_that_does_not_exist(plant: Any) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.csv: there is no such file; check the path"):
        plant.ingest(plant.folder / "nowhere.csv")
    with pytest.raises(BadInput, match=f"{plant.folder} is a folder, no file; name the file in it"):
        plant.ingest(plant.folder)
    with pytest.raises(BadInput, match="/dev/null is no regular file; write what comes from it to a file"):
        plant.ingest(Path("/dev/null"))
    assert plant.sums() == BEFORE


def test_a_file_that_is_still_being_written(plant: Any) -> None:
    """Another process appends to it: first seen by its open handle, then, closed, taken in."""
    path = plant.drop("b.csv", HEADER + MORE)
    code = "import sys, time; handle = open(sys.argv[1], 'a'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            lying = plant.lying()
            [report] = plant.inbox()
            assert report.status == "waiting"
            assert re.match(
                r"b\.csv is still being written by another program; wait until it is closed", report.sentences[0]
            )
            assert plant.lying() == lying
            with pytest.raises(BadInput, match="still being written") as found:
                plant.ingest(path)
            assert found.value.exit_status == 3
            assert plant.sums() == BEFORE
            assert plant.store.count("files", "status = 'refused'") == 0
        finally:
            writer.kill()
    assert [item.status for item in plant.inbox()] == ["accepted"]
    assert plant.sums()["inspections"] == 6


def test_a_file_that_grows_while_we_wait(new_site: Callable[..., Any]) -> None:
    """A program that opens, appends and closes, as some exports do, has no handle open most of the time."""
    site = new_site(ingest={"settle_seconds": 0.6})
    path = site.drop("b.csv", HEADER + MORE)
    code = (
        "import sys, time\n"
        "for n in range(40):\n"
        "    with open(sys.argv[1], 'a') as handle: handle.write(f'C{n},2026-04-02,M1,1,1,0\\n')\n"
        "    time.sleep(0.1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        time.sleep(0.3)
        assert [item.status for item in site.inbox()] == ["waiting"]
        assert site.sums()["inspections"] == 0
        writer.wait(timeout=30)
    time.sleep(0.1)
    [report] = site.inbox()
    assert (report.status, report.read) == ("accepted", 43)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, whose rights are what is tested")
def test_a_file_that_may_not_be_read(new_site: Callable[..., Any]) -> None:
    site = new_site()
    path = site.file("b.csv", HEADER + MORE)
    path.chmod(0o600)
    folders = [site.folder, *site.folder.parents, *(path for path in site.folder.rglob("*") if path.is_dir())]
    before = {folder: folder.stat().st_mode for folder in folders}
    for folder in folders[:-1]:
        folder.chmod(0o777)
    try:
        os.seteuid(65534)
        with pytest.raises(BadInput, match="the file may not be read; give this user the right to read it"):
            site.ingest(path)
    finally:
        os.seteuid(0)
        for folder, mode in before.items():
            folder.chmod(mode)
    assert site.sums() == {"files": 0, "inspections": 0, "quarantine": 0, "labels": 0}


@pytest.mark.parametrize("change", ["rows", "length"])
def test_a_file_that_changes_while_it_is_read(plant: Any, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Overwritten between the survey and the reading of its rows."""
    import flows.intake

    path = plant.drop("b.csv", HEADER + MORE)
    real = flows.intake.read_chunks
    other = MORE.replace("M1", "M9") if change == "rows" else MORE + "B9,2026-04-02,M1,1,1,0\n"

    def overwritten(*arguments: Any) -> Any:
        path.write_text(HEADER + other)
        return real(*arguments)

    monkeypatch.setattr(flows.intake, "read_chunks", overwritten)
    [report] = plant.inbox()
    assert report.status == "refused"
    assert re.match(
        r"b\.csv changed while it was being read; wait until it is written, and try again", report.sentences[0]
    )
    assert plant.sums() == BEFORE
    monkeypatch.undo()
    assert [item.status for item in plant.inbox()] == ["accepted"]


def test_every_sentence_is_one_and_says_what_to_do(plant: Any) -> None:
    advice = re.compile(r"; (export|mend|copy|save|rename|add|wait|write|try)")
    for name, case in WHOLE.items():
        with pytest.raises(PipelineError) as found:
            plant.ingest(plant.file(f"cases/{Path(case.name).name}", case.content))
        sentence = str(found.value)
        assert "\n" not in sentence, name
        assert advice.search(sentence), sentence
