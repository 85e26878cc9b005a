"""Files as plants have them and nobody writes by hand: column names, line ends, names of files, cells of Parquet."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.bytes import file_sha
from flows.errors import BadInput
from flows.images import ImageProblem, ImageSource
from flows.ingest import printable
from flows.propose import propose
from flows.store import current_rows
from tests.conftest import Site

HEADER = "part,time,machine,x1,x2,ok"
ROW = "{part},2026-04-01 10:0{n},M1,{n},2,{label}"


def rows(prefix: str, count: int = 5, extra: str = "") -> str:
    return "".join(ROW.format(part=f"{prefix}{n}", n=n, label=n % 2) + extra + "\n" for n in range(count))


def summed(report) -> bool:  # type: ignore[no-untyped-def]
    return report.read == report.accepted + report.quarantined + report.duplicates


@pytest.mark.parametrize("name", ["n", "N", "top", "seq", "same", "i", "r", "t", "staged", "newest", "count"])
def test_a_column_may_have_any_name_that_the_system_does_not_keep(site: Site, name: str) -> None:
    for prefix in "AB":
        report = site.ingest(site.file(f"{prefix}.csv", f"{HEADER},{name}\n{rows(prefix, extra=',7')}"))
        assert report.accepted == 5
    again = site.ingest(site.file("c.csv", f"{HEADER},{name}\n{rows('B', extra=',8')}"))
    assert again.corrections == 5
    kept = current_rows(site.store)
    assert len(kept) == 10 and sorted(kept[name]) == ["7"] * 5 + ["8"] * 5


@pytest.mark.parametrize("name", ["_label", "_label_value", "_hash_1", "_IMAGE", "_row"])
def test_a_name_that_the_system_uses_is_refused(site: Site, name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' is a name that the system uses itself; rename the column"):
        site.ingest(site.file("a.csv", f"{HEADER},{name}\n{rows('A', extra=',7')}"))
    assert site.sums() == {"files": 0, "inspections": 0, "quarantine": 0, "labels": 0}


def test_a_new_column_that_differs_by_case_only_is_refused(site: Site) -> None:
    site.ingest(site.file("a.csv", f"{HEADER},Note\n{rows('A', extra=',x')}"))
    before = site.sums()
    with pytest.raises(
        BadInput, match=r"b\.csv, row 1 \(header\): 'note' differs from 'Note' of earlier files by case"
    ):
        site.ingest(site.file("b.csv", f"{HEADER},note\n{rows('B', extra=',x')}"))
    assert site.sums() == before


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_any_line_end(site: Site, end: str) -> None:
    report = site.ingest(site.file("a.csv", f"{HEADER}\n{rows('A')}".replace("\n", end)))
    assert report.accepted == report.read == 5


def test_parquet_cells_that_json_does_not_know(site: Site) -> None:
    cells = {
        "part": [f"A{n}" for n in range(6)],
        "time": [f"2026-04-01 10:0{n}" for n in range(6)],
        "machine": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0],
        "x1": pa.array([1.0, float("inf"), 3.0, float("nan"), 5.0, 6.0], from_pandas=False),
        "x2": [1.0, 2.0, float("-inf"), 4.0, 5.0, 6.0],
        "flag": [True, False, True, False, True, False],
        "ok": [0, 1, 0, 1, 0, 1],
    }
    path = site.folder / "a.parquet"
    pq.write_table(pa.table(cells), path)
    report = site.ingest(path)
    assert (report.read, report.accepted, report.quarantined) == (6, 4, 2) and summed(report)
    held = site.store.read("quarantine").sort_values("_row")
    assert ["infinite" in str(reasons) for reasons in held["reasons"]] == [True, True]
    # As they would have been taken in: released, they are the same machine and the same flag as the others.
    assert [json.loads(record)["machine"] for record in held["record"]] == ["2", "1"]
    assert [json.loads(record)["flag"] for record in held["record"]] == ["false", "true"]
    assert set(current_rows(site.store)["machine"]) == {"1", "2"}


def test_a_file_in_which_no_row_fits_the_header(site: Site) -> None:
    content = HEADER + "\n" + rows("A", extra=",")
    with pytest.raises(BadInput, match=r"a\.csv: .*the row has 7 cells, the header has 6"):
        site.ingest(site.file("a.csv", content))
    assert site.sums()["inspections"] == 0


def test_a_header_that_never_ends(site: Site) -> None:
    with pytest.raises(BadInput, match="quotation mark"):
        site.ingest(site.file("a.csv", f'{HEADER}\nA1,"' + "x" * 200_000))


def test_one_bad_file_does_not_keep_the_others_waiting(site: Site, tmp_path: Path) -> None:
    site.drop("b.csv", f"{HEADER}\n{rows('B')}")
    named = site.workspace.inbox / os.fsdecode("検査.csv".encode("cp932"))
    named.write_text(f"{HEADER}\n{rows('A')}")
    reports = site.inbox()
    assert [report.status for report in reports] == ["accepted", "refused"]
    assert reports[1].name == "検査.csv" and "is not in UTF-8; rename it" in reports[1].sentences[0]
    json.dumps([report.name for report in reports]).encode()
    assert named.exists() and site.sums()["inspections"] == 5
    named.rename(site.workspace.inbox / printable(named.name))
    assert [report.status for report in site.inbox()] == ["accepted"]
    assert site.sums()["inspections"] == 10


def test_a_file_that_may_not_be_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = site.drop("a.csv", f"{HEADER}\n{rows('A')}")
    site.drop("b.csv", f"{HEADER}\n{rows('B')}")
    closed.chmod(0)
    if os.access(closed, os.R_OK):  # the administrator may read every file

        def refused(path: Path, _sha: Callable[[Path], str] = file_sha) -> str:
            if path == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return _sha(path)

        monkeypatch.setattr("flows.ingest.file_sha", refused)
    reports = site.inbox()
    assert [report.status for report in reports] == ["refused", "accepted"]
    assert "give this user the right to read it" in reports[0].sentences[0]
    assert closed.exists() and site.sums()["inspections"] == 5


def test_hours_alone_as_offset_from_utc(site: Site) -> None:
    cells = rows("A").replace("10:00,", "10:00:00+09,").replace("10:01,", "10:01:00.25-03:30,").replace("10:02,", "x,")
    report = site.ingest(site.file("a.csv", f"{HEADER}\n{cells}"))
    assert (report.accepted, report.quarantined) == (4, 1)
    times = current_rows(site.store).set_index("part")["_time"]
    assert str(times["A0"]) == "2026-04-01 01:00:00+00:00" and str(times["A1"]) == "2026-04-01 13:31:00.250000+00:00"


@pytest.mark.parametrize("word", ["NaN", "NULL", "N/A", "?", "-"])
def test_a_word_for_no_label_is_no_label(site: Site, word: str) -> None:
    report = site.ingest(site.file("a.csv", f"{HEADER}\n{rows('A')}".replace(",1\n", f",{word}\n")))
    assert (report.accepted, report.labels) == (5, 3)
    assert site.sums()["quarantine"] == 0


def test_a_word_for_no_label_is_proposed_as_no_class(tmp_path: Path) -> None:
    cells = [
        f"P{n},{n % 7},{(n * n) % 11},{'NaN' if n % 10 == 0 else 'NG' if n % 4 == 0 else 'OK'}" for n in range(200)
    ]
    path = tmp_path / "a.csv"
    path.write_text("part,x1,x2,result\n" + "\n".join(cells) + "\n")
    found = propose(path)
    assert found.settings.task.classes == ["NG", "OK"] or found.settings.task.classes == ["OK", "NG"]
    assert found.settings.task.normal == "OK"


@pytest.mark.parametrize(
    "name", ["lot", "lot_id", "lot_no", "LotNumber", "batch_id", "Batch No", "ロット番号", "ロットNo"]
)
def test_a_lot_by_any_of_its_names_is_the_group(tmp_path: Path, name: str) -> None:
    cells = [f"P{n},L{n // 8},{n % 7},{(n * n) % 11},{'NG' if n % 4 == 0 else 'OK'}" for n in range(400)]
    path = tmp_path / "a.csv"
    path.write_text(f"part,{name},x1,x2,result\n" + "\n".join(cells) + "\n")
    assert propose(path).settings.data.group == name


def test_a_damaged_image_in_a_zip_is_a_reason(tmp_path: Path) -> None:
    place = tmp_path / "a.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.png", b"abcdefgh" * 500)
    content = bytearray(place.read_bytes())
    start = 30 + len("one.png")
    content[start : start + 12] = b"\xff" * 12
    place.write_bytes(content)
    source = ImageSource.open(place)
    with pytest.raises(ImageProblem, match=r"'one\.png' cannot be read from a\.zip"):
        source.read("one.png")
    source.close()


def test_an_unknown_class_is_told_with_a_command_that_can_be_pasted(new_site: Callable[..., Site]) -> None:
    site = new_site(task={"classes": ["0", "1"]})
    report = site.ingest(site.file("a.csv", f"{HEADER}\n{rows('A')}".replace(",1\n", ",no defect\n")))
    assert "softad config add-class 'no defect'" in " ".join(report.sentences)


@pytest.mark.parametrize("names", [["time", "x1"], ["probability", "time"], ["inspector", "x1"]])
def test_features_called_as_a_label_file_calls_its_columns(new_site: Callable[..., Site], names: list[str]) -> None:
    site = new_site(data={"time": None, "numeric": names, "categorical": [], "slices": [], "window": {"rows": 50}})
    header = f"part,{','.join(names)},ok\n"
    report = site.ingest(site.file("a.csv", header + "P1,5,2,0\nP2,6,3,1\n"))
    assert (report.kind, report.accepted, report.labels) == ("inspections", 2, 2)
    # What lies in the folder of label files is one all the same.
    site.drop("labels/l.csv", "part,ok\nP1,1\n")
    assert [(found.kind, found.labels) for found in site.inbox()] == [("labels", 1)]


def test_words_in_columns_of_a_one_hot_label_are_told_of(new_site: Callable[..., Site]) -> None:
    site = new_site(
        data={"label": "fault", "label_columns": ["scratch", "stain"]}, task={"classes": ["scratch", "stain"]}
    )
    text = "part,time,machine,x1,x2,scratch,stain\n"
    cells = ["Yes,No", "x,o", "1,0", ",", "NaN,NaN"]
    report = site.ingest(
        site.file("a.csv", text + "".join(f"P{n},2026-04-01,M1,1,1,{c}\n" for n, c in enumerate(cells)))
    )
    assert (report.accepted, report.labels) == (5, 2)
    assert site.store.read("quarantine")["_id"].tolist() == ["P1"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=,", "\ufeffsep=\t"])
def test_a_first_line_for_excel_is_named(site: Site, first: str) -> None:
    path = site.file("a.csv", f"{first}\r\n{HEADER}\n{rows('A')}")
    with pytest.raises(
        BadInput, match=r"(?i)a\.csv, row 1: 'sep=.*' is a line for Excel and not the names of the columns"
    ):
        site.ingest(path)


def test_a_header_without_an_end(site: Site) -> None:
    header = ",".join(f"channel_{number:06d}" for number in range(20_000))
    with pytest.raises(BadInput, match=r"row 1 \(header\): the names of the columns take more than 256 KB"):
        site.ingest(site.file("a.csv", f"{HEADER},{header}\n{rows('A')}"))
