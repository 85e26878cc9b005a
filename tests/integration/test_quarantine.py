"""What people do with quarantined rows: repair in a spreadsheet, take in as they are, discard; nothing is lost."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import ledger
from flows.audit import verify
from flows.cli import app
from flows.quarantine import DISCARDED, RELEASED
from flows.store import current_rows

RULES = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x1", "max_value": 5},
     "meta": {"rule": "x1 small"}},
]  # fmt: skip
PARTS = """part,time,x1,x2,machine,ok,remark
A1,2026-04-01 08:00,1,2,M1,1,fine
A2,2026-04-01 08:01,9,2,M1,0,"=HYPERLINK(""http://evil"")"
A3,2026-04-01 08:02,abc,2,M2,1,-5.3
A4,2026-04-01 08:03,7,2,M2,1,@now
A5,2026-04-01 08:04,2,3,M2,7,'quoted
"""


@pytest.fixture
def held(new_site: Any) -> Any:
    """A file of five rows: two against a rule, one that is no number, one whose label is no class."""
    site = new_site(rules=RULES, ingest={"max_bad_share": 0.9})
    report = site.ingest(site.file("parts.csv", PARTS))
    assert (report.read, report.accepted, report.quarantined) == (5, 2, 3)
    return site


def run(site: Any, *words: str | Path) -> tuple[int, dict[str, Any]]:
    where = ["--config", str(site.folder / "config.yaml"), "--workspace", str(site.workspace.root), "--json"]
    result = CliRunner().invoke(app, ["quarantine", *map(str, words), *where])
    return result.exit_code, json.loads(result.stdout)


def keys(site: Any, *more: str) -> dict[str, str]:
    """Row number in the file -> key, of what is held."""
    rows = run(site, "list", *more)[1]["rows"]
    return {str(row["id"] or row["row"]): row["key"] for row in rows}


def balanced(site: Any) -> bool:
    """For every file: read = accepted + quarantined + duplicates; and what lies in quarantine stays there."""
    files = site.store.read("files", where="status = 'accepted'")
    sums = (files["read"] == files["accepted"] + files["quarantined"] + files["duplicates"]).all()
    return bool(sums) and site.store.count("quarantine") == 4


def test_repaired_in_a_spreadsheet_and_released(held: Any, tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    status, said = run(held, "export", table)
    assert (status, said["rows"]) == (0, 4)
    assert run(held, "export", table)[0] == 2, "a file that is there is not replaced"
    text = table.read_text(encoding="utf-8-sig")
    rows = {row["part"]: row for row in csv.DictReader(io.StringIO(text))}
    assert [rows[part]["remark"] for part in ("A2", "A3", "A4")] == ['\'=HYPERLINK("http://evil")', "-5.3", "'@now"]
    assert "not a number" in rows["A3"]["quarantine_reasons"]

    # Not yet good: all or nothing.
    mended = text.replace(",9,", ",3,").replace(",abc,", ",4,")
    table.write_text(mended, encoding="utf-8-sig")
    before = held.content()
    status, said = run(held, "release", table, "--by", "aiko")
    assert status == 3 and said["error"].startswith(f"nothing was released, {keys(held)['A4']} does not hold")
    assert held.content() == before and ledger.read(held.store, action=RELEASED) == []

    # In the encoding and with the separator of a Japanese spreadsheet.
    good = mended.replace(",7,2,M2,1", ",4,2,M2,1").replace(",7,'quoted", ",0,'quoted")
    cells = list(csv.reader(io.StringIO(good)))
    with table.open("w", encoding="cp932", newline="") as handle:
        csv.writer(handle, delimiter=";").writerows(cells)
    status, said = run(held, "release", table, "--by", "aiko", "--reason", "typing errors")
    assert (status, said["released"]) == (0, 4)
    now = current_rows(held.store).set_index("_id")
    assert sorted(now.index) == ["A1", "A2", "A3", "A4", "A5"]
    assert now.loc["A2", "remark"] == '=HYPERLINK("http://evil")' and now.loc["A5", "remark"] == "'quoted"
    labels = held.store.read("labels").set_index("_id")["label"]
    assert labels["A5"] == "0" and labels["A2"] == "0"
    assert run(held, "list")[1]["total"] == 0
    everything = run(held, "list", "--all")[1]["rows"]
    assert {(row["state"], row["by"], row["note"]) for row in everything} == {("released", "aiko", "typing errors")}
    status, said = run(held, "release", table, "--by", "ken")
    assert (status, said["released"], said["already"]) == (0, 0, 4)
    assert len(ledger.read(held.store, action=RELEASED)) == 1 and balanced(held)
    assert verify(held.store).faults == ()


def test_taken_in_as_they_are_with_a_reason(held: Any) -> None:
    named = keys(held)
    assert run(held, "release", "--unchanged", named["A2"])[1]["error"].startswith("say why the rows are taken in")
    status, said = run(held, "release", "--unchanged", named["A3"], "--reason", "x", "--by", "ken")
    assert status == 3 and "'abc' is not a number" in said["error"], "what cannot be read stays out"
    status, said = run(held, "release", "--unchanged", "--rule", "x1 small", "--reason", "new gauge", "--by", "ken")
    assert (status, said["released"]) == (0, 2)
    assert sorted(current_rows(held.store)["_id"]) == ["A1", "A2", "A4", "A5"]
    assert run(held, "release", "--unchanged", named["A2"], "--reason", "again")[1]["already"] == 1
    (entry,) = ledger.read(held.store, action=RELEASED)
    assert (entry.actor, entry.details["reason"], entry.details["rules"]) == ("ken", "new gauge", "not asked")
    assert run(held, "list")[1]["total"] == 2 and balanced(held)


def test_discarded_stays_in_the_table(held: Any) -> None:
    named = keys(held)
    assert run(held, "discard", named["A3"])[0] == 2
    assert run(held, "discard", "nothing:1", "--reason", "x")[1]["error"].startswith("the quarantine has no row")
    assert run(held, "discard", named["A3"], "--reason", "test part", "--by", "aiko")[1]["discarded"] == 1
    assert run(held, "discard", named["A3"], "--reason", "again")[1] == {"discarded": 0, "already": 1}
    status, said = run(held, "release", "--unchanged", named["A3"], "--reason", "x")
    assert status == 2 and "was discarded by aiko (test part); it stays so" in said["error"]
    (entry,) = ledger.read(held.store, action=DISCARDED)
    assert entry.actor == "aiko" and list(entry.details["rows"].values()) == ["3"]
    assert run(held, "list")[1]["total"] == 3 and balanced(held)


def test_a_crash_between_ingest_and_ledger_ends_the_same(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.quarantine_files as module

    class Cut(Exception):
        pass

    def cut(*_: Any, **__: Any) -> int:
        raise Cut

    words = ("release", "--unchanged", "--rule", "x1 small", "--reason", "new gauge")
    with monkeypatch.context() as patch:
        patch.setattr(module, "let_go", cut)
        assert run(held, *words)[0] == 1
    assert run(held, "list")[1]["total"] == 4
    assert run(held, *words)[1]["released"] == 2
    assert sorted(current_rows(held.store)["_id"]) == ["A1", "A2", "A4", "A5"]
    assert held.store.count("files", "status = 'accepted'") == 2 and balanced(held)


def test_label_files_are_repaired_on_their_own(held: Any, tmp_path: Path) -> None:
    report = held.ingest(held.file("later.csv", "part,ok\nA1,0\nA5,x\n"))
    assert report.quarantined == 1
    table = tmp_path / "labels.csv"
    assert run(held, "export", table, "--labels")[1] == {"file": str(table), "rows": 1, "others": 4}
    table.write_text(table.read_text(encoding="utf-8-sig").replace("A5,x", "A5,1"))
    assert run(held, "release", table, "--by", "aiko")[1]["released"] == 1
    labels = held.store.read("labels", order="_version").set_index("_id")["label"]
    assert labels["A5"] == "1"


def test_a_row_that_is_still_bad_is_named_as_the_person_has_it(held: Any, tmp_path: Path) -> None:
    named = keys(held)
    assert run(held, "discard", named["A2"], "--reason", "test part")[0] == 0
    table = tmp_path / "q.csv"
    assert run(held, "export", table)[1]["rows"] == 3
    status, said = run(held, "release", table)
    assert status == 3
    assert said["error"] == (
        f"nothing was released, {named['A3']} does not hold: q.csv, row 1, column 'x1': 'abc' is not a number; "
        "mend it, and release the file again"
    )
    assert run(held, "release", tmp_path)[1]["error"] == f"{tmp_path} is a folder, no file; name the file in it"
    # Counted as in the person's file, of which one row was released meanwhile.
    assert run(held, "release", "--unchanged", named["A4"], "--reason", "new gauge")[0] == 0
    table.write_text(table.read_text(encoding="utf-8-sig").replace(",abc,", ",4,"))
    assert (
        f"nothing was released, {named['A5']} does not hold: q.csv, row 3, " in run(held, "release", table)[1]["error"]
    )
    status, said = run(held, "release", "--unchanged", named["A5"], "--reason", "x")
    assert status == 3 and f"{named['A5']} does not hold: column 'ok': " in said["error"]
    assert said["error"].endswith("; export it, repair it, and release the file")
