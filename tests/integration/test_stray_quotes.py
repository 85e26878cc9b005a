"""Quotation marks that nobody meant: no row vanishes in the cell of another one without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.quotes import swallowed_rows
from flows.readers import read_chunks, survey
from flows.store import current_rows
from tests.conftest import Site

HEADER = "part,time,machine,x1,x2,ok,remark\n"


def rows(count: int) -> list[list[str]]:
    return [[f"P{n}", f"2026-04-01 10:{n:02d}", "M1", str(n), "2", "0", "as new"] for n in range(count)]


def text(table: list[list[str]], end: str = "\n") -> str:
    return HEADER + "".join(",".join(row) + end for row in table)


@pytest.mark.parametrize("column", range(7))
@pytest.mark.parametrize("gap", [1, 3])
def test_rows_between_two_stray_marks_are_told_of(site: Site, column: int, gap: int) -> None:
    table = rows(12)
    for row in (4, 4 + gap):
        table[row][column] = '"' + table[row][column]
    report = site.ingest(site.file("a.csv", text(table)))
    assert (report.read, report.accepted, report.quarantined) == (12 - gap, 11 - gap, 1)
    held = site.store.read("quarantine").iloc[0]
    [reason] = [item for item in json.loads(held["reasons"]) if item["rule"] == "cells"]
    noun = "row" if gap == 1 else "rows"
    assert held["_row"] == 5
    assert f"holds {gap} more {noun}: a quotation mark opens it" in reason["message"]
    for row in range(4, 5 + gap):
        assert f"P{row}" in held["record"] or row == 4
    # The mended file brings what was swallowed, and skips what is there.
    mended = site.ingest(site.file("b.csv", text(rows(12))))
    assert (mended.accepted, mended.duplicates) == (1 + gap, 11 - gap)
    assert len(current_rows(site.store)) == 12


def test_a_label_file_too(site: Site) -> None:
    report = site.ingest(site.file("l.csv", 'part,ok\nP1,1\n"P2,0\n"P3,1\nP4,0\n'))
    assert (report.kind, report.read, report.accepted, report.quarantined) == ("labels", 3, 2, 1)
    assert "first row 2, column 'part': the cell of part holds 1 more row" in report.sentences[0]


def test_remarks_of_several_lines_are_cells(site: Site) -> None:
    table = rows(4)
    table[1][6] = '"scratched, bent, dull,\nshift 2, line 1, by hand, twice, again"'
    table[2][6] = '"left\nright"'
    table[3][2] = '"M1\r\n"'
    report = site.ingest(site.file("a.csv", text(table)))
    assert (report.accepted, report.quarantined) == (4, 0)


_cells = st.text("ab1 .", min_size=1, max_size=4).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_whatever_is_swallowed_is_counted(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    separator, end = data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\n", "\r\n"]))
    columns, count = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 6))
    table = data.draw(st.lists(st.lists(_cells, min_size=columns, max_size=columns), min_size=count, max_size=count))
    column = data.draw(st.integers(0, columns - 1))
    first, second = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
    for row in (first, second):
        table[row][column] = '"' + table[row][column]
    names = [f"c{n}" for n in range(columns)]
    path = Path(tmp_path_factory.mktemp("quotes"), "a.csv")
    path.write_bytes("".join(separator.join(row) + end for row in [names, *table]).encode())
    chunks = list(read_chunks(path, survey(path, names), 100))
    [found] = [item for chunk in chunks for item in chunk.swallowed]
    assert (found.column, found.rows) == (names[column], second - first)
    assert sum(chunk.table.num_rows for chunk in chunks) + found.rows == count


def test_a_chunk_cut_out_of_a_larger_table_is_searched_in_its_own_rows() -> None:
    import pyarrow as pa

    table = pa.table({"a": ["1", "2\n3,x", "4"], "b": ["x", "y", "z"]})
    assert [item.position for item in swallowed_rows(table.slice(1, 2), ",")] == []
    table = pa.table({"a": ["1", "2,x\n3", "4"], "b": ["x", "y", "z"]})
    assert [item.position for item in swallowed_rows(table.slice(1, 2), ",")] == [0]
    assert swallowed_rows(table.slice(2, 1), ",") == swallowed_rows(table.slice(0, 1), ",") == ()
