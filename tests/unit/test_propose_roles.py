"""What `init` says where a column is almost what its name promises: an id, a time, a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.errors import BadInput
from flows.propose import Proposal, describe, propose, write
from flows.settings import load_settings

Cells = Callable[[int], str]
ROWS = 400


def found(folder: Path, header: str, cells: Cells, rows: int = ROWS) -> Proposal:
    path = folder / "parts.csv"
    path.write_text(header + "\n" + "".join(cells(n) + "\n" for n in range(rows)))
    return propose(path)


def verdict(n: int) -> str:
    return "NG" if n % 4 == 0 else "OK"


@pytest.mark.parametrize(
    ("repeated", "empty", "chosen"), [(1, 0, True), (0, 2, True), (2, 2, True), (5, 0, False), (0, 20, False)]
)
def test_a_serial_that_is_an_id_but_for_some_rows(tmp_path: Path, repeated: int, empty: int, chosen: bool) -> None:
    def cells(n: int) -> str:
        serial = "" if n < empty else f"S{max(n, empty + repeated)}"
        return f"{serial},{n % 7},{n * n % 11},{verdict(n)}"

    proposal = found(tmp_path, "serial,x1,x2,result", cells)
    assert proposal.settings.data.id == ("serial" if chosen else None)
    [note] = [note.text for note in proposal.notes if note.topic == "id" and note.text.startswith("id:")]
    if repeated:
        assert f"{repeated:,} rows repeat an id of another row" in note
    if empty:
        assert f"{empty:,} rows have none" in note
    assert ("will be held in quarantine unless they are alike" if chosen else "--id takes it") in note
    assert "serial" not in proposal.settings.data.features
    assert note in " ".join(" ".join(describe(proposal)).split())


@pytest.mark.parametrize("day", ["2026-04-01", "2026/4/1", "2026-04-01 00:00:00"])
def test_the_file_of_one_day_has_a_time(tmp_path: Path, day: str) -> None:
    proposal = found(tmp_path, "part,date,x1,x2,result", lambda n: f"P{n},{day},{n % 7},{n * n % 11},{verdict(n)}")
    assert proposal.settings.data.time == "date"
    assert load_settings(write(proposal, tmp_path / "out")).data.window == proposal.settings.data.window


def test_a_model_year_that_never_changes_is_no_time(tmp_path: Path) -> None:
    proposal = found(tmp_path, "part,date,x1,x2,result", lambda n: f"P{n},2026,{n % 7},{n * n % 11},{verdict(n)}")
    assert proposal.settings.data.time is None


def test_kinds_of_defect_beside_empty_cells(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    kinds = random.choice(["", "scratch", "dent"], ROWS, p=[0.9, 0.05, 0.05])
    proposal = found(tmp_path, "part,x1,x2,defect", lambda n: f"P{n},{n % 7},{n * n % 11},{kinds[n]}")
    assert sorted(proposal.settings.task.classes) == ["dent", "scratch"] and proposal.settings.task.normal is None
    text = " ".join(note.text for note in proposal.notes if note.topic == "label")
    assert f"{(kinds == '').sum()} rows have no label yet" in text
    assert "if an empty cell means a good part, let the export write OK there" in text
    with pytest.raises(BadInput, match="holds 'dent' or nothing, which is one class; where empty means a good part"):
        found(tmp_path, "part,x1,x2,defect", lambda n: f"P{n},{n % 7},{n * n % 11},{'dent' if n % 4 == 0 else ''}")


def test_a_good_class_beside_empty_cells_is_not_doubted(tmp_path: Path) -> None:
    proposal = found(
        tmp_path,
        "part,x1,x2,result",
        lambda n: f"P{n},{n % 7},{n * n % 11},{'' if n % 3 == 0 else verdict(n)}",
    )
    text = " ".join(note.text for note in proposal.notes if note.topic == "label")
    assert "have no label yet; they wait for a label file." in text
