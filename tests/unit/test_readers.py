"""Reading files: what they are, how their rows are counted, and what is refused."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.bytes import is_open_for_writing
from flows.coerce import as_text, numbers, times
from flows.errors import BadInput
from flows.readers import RawChunk, read_chunks, survey
from flows.rows import hex_text, number_hashes, occurrence_numbers, row_hashes, text_hashes


def read(path: Path, chunk_rows: int = 100) -> list[RawChunk]:
    return list(read_chunks(path, survey(path), chunk_rows))


def rows_of(path: Path) -> list[dict[str, str | None]]:
    return [row for chunk in read(path) for row in chunk.table.to_pylist()]


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "separator", "encoding"),
    [
        (b"id,x\n1,2\n", ",", "utf-8"),
        (b"id;x\r\n1;2,5\r\n", ";", "utf-8"),
        (b"id\tx\n1\t2\n", "\t", "utf-8"),
        (b"\xef\xbb\xbfid,x\n1,2\n", ",", "utf-8"),
        ("id,製品\n1,良品\n".encode(), ",", "utf-8"),
        ("id,製品\n1,良品\n".encode("cp932"), ",", "cp932"),
        ("id,ﾗｲﾝ\n1,ｱｲｳ\n".encode("cp932"), ",", "cp932"),
        (gzip.compress(b"id;x\n1;2\n", mtime=0), ";", "utf-8"),
        (gzip.compress("id,製品\n1,良品\n".encode("cp932"), mtime=0), ",", "cp932"),
    ],
)
def test_separator_and_encoding_are_found(tmp_path: Path, content: bytes, separator: str, encoding: str) -> None:
    found = survey(written(tmp_path, content))
    assert (found.separator, found.encoding) == (separator, encoding)
    assert found.columns[0] == "id"
    assert len(found.columns) == 2


def test_the_config_helps_where_the_separator_could_be_two(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b;c,d\n1,2;3,4\n1,2;3,4\n")
    assert survey(path, expected=["a,b", "c,d"]).separator == ";"
    assert survey(path, expected=["a", "d"]).separator == ","


def test_cp932_text_is_read_as_it_was_written(tmp_path: Path) -> None:
    # 表 and ソ contain a byte that is a backslash in ASCII.
    path = written(tmp_path, "機械,結果\n表面,ソケット\n".encode("cp932"))
    assert rows_of(path) == [{"機械": "表面", "結果": "ソケット"}]


def test_cp932_is_the_same_wherever_blocks_end(tmp_path: Path) -> None:
    text = "番号,備考\n" + "".join(f"{number},検査表ソ{'あ' * (number % 7)}\n" for number in range(120_000))
    path = written(tmp_path, text.encode("cp932"))
    found = [cell for chunk in read(path, 50_000) for cell in chunk.table["備考"].to_pylist()]
    assert found == [f"検査表ソ{'あ' * (number % 7)}" for number in range(120_000)]


@pytest.mark.parametrize("text", ["Gerät", "Prüfer", "café", "GRÖSSE", "größe", "Ångström", "naïve ÄÖ", "±5°"])
def test_latin_text_is_never_taken_for_japanese(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, f"id,x\n1,{text}\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"a\.csv, line 2, byte \d+: 0x\w\w is neither UTF-8 nor Japanese CP932"):
        survey(path)


def test_the_bad_byte_is_found_behind_many_blocks(tmp_path: Path) -> None:
    good = "x,y\n" + "あいう,1\n" * 700_000
    path = written(tmp_path, good.encode() + b"ab\xffcd,1\n")
    with pytest.raises(BadInput, match=r"line 700002, byte 3: 0xff"):
        survey(path)


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (b"", "a.csv", "a.csv is empty"),
        (b"\n\n \n", "a.csv", "blank lines only"),
        (b"id,x,id\n1,2,3\n", "a.csv", r"columns 1 and 3: two columns are called 'id'"),
        (b"id,X,x\n1,2,3\n", "a.csv", r"'X' and 'x' differ by case only"),
        (b"id,x\n\x00\x01", "a.csv", r"byte 6: this is binary data"),
        (gzip.compress(b"id,x\n" * 5000, mtime=0)[:-9], "a.csv.gz", "the gzip file ends in its middle"),
        (gzip.compress(b"id,x\n" * 5000, mtime=0)[:-8] + b"\0" * 8, "a.csv.gz", "the gzip file is damaged"),
        (b"PK\x03\x04rest", "a.xlsx", "is an Excel workbook or a zip archive"),
        (
            b'{"a": 1.5, "b": "x"}\n{"a": 2.5, "b": "y"}\n',
            "a.jsonl",
            "is JSON, no CSV or Parquet; save the table as CSV",
        ),
        (b'\n[\n {"a": 1.5},\n {"a": 2.5}]\n', "a.csv", "is JSON, no CSV"),
        (b"<html><table><tr><td>1</td></tr></table></html>\n", "a.xls", "is HTML or XML, no CSV"),
        (b'<?xml version="1.0"?>\n<rows/>\n', "a.csv", "is HTML or XML, no CSV"),
        ("id,x\n".encode("utf-16"), "a.csv", "is in UTF-16"),
        (b"PAR1 cut off", "a.parquet", "cut off or damaged"),
        (b"id,x\n1,2\n", "a.parquet", "is no Parquet file"),
        ("id,x\n1,é".encode()[:-1], "a.csv", "line 2, byte 3: 0xc3"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(
    tmp_path: Path, content: bytes, name: str, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence) as found:
        survey(written(tmp_path, content, name))
    assert str(found.value).startswith(name)


def test_rows_that_do_not_fit_the_header_keep_their_numbers(tmp_path: Path) -> None:
    lines = ["1,2", "", "3", "4,5", "6,7,8", '9,"a\nb"', "", '10,11,"c\nd"', "12,13"]
    [chunk] = read(written(tmp_path, "a,b\n" + "\n".join(lines) + "\n"))
    assert chunk.rows.tolist() == [1, 3, 5, 7]
    assert chunk.table["a"].to_pylist() == ["1", "4", "9", "12"]
    assert [(item.row, item.text, item.cells) for item in chunk.ragged] == [
        (2, "3", 1), (4, "6,7,8", 3), (6, '10,11,"c\nd"', 3),
    ]  # fmt: skip


@given(good=st.lists(st.booleans(), min_size=1, max_size=400), chunk_rows=st.integers(1, 60))
def test_every_row_is_numbered_once_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, good: list[bool], chunk_rows: int
) -> None:
    lines = [f"{number},ok" if fits else f"{number},too,many" for number, fits in enumerate(good, start=1)]
    path = written(tmp_path_factory.mktemp("rows"), "n,state\n" + "\n".join(lines) + "\n")
    chunks = read(path, chunk_rows)
    numbered = [
        (int(row), cell)
        for chunk in chunks
        if chunk.table.num_rows
        for row, cell in zip(chunk.rows, chunk.table["n"].to_pylist(), strict=True)
    ]
    assert numbered == [(number, str(number)) for number, fits in enumerate(good, start=1) if fits]
    assert [item.row for chunk in chunks for item in chunk.ragged] == [n for n, fits in enumerate(good, 1) if not fits]
    assert all(chunk.table.num_rows <= chunk_rows for chunk in chunks)


def test_a_quotation_mark_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    for content in ('a,b\n1,"x\n2,3\n4,5\n', 'a,b\n1,2\n3,"x', 'a,b\n1,"x\n2,3,4\n'):
        with pytest.raises(BadInput, match="a quotation mark is opened"):
            read(written(tmp_path, content))
    assert rows_of(written(tmp_path, 'a,b\n1,"x\ny"')) == [{"a": "1", "b": "x\ny"}]


def test_quotation_marks_inside_cells_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b\n1,5" pipe\n2,"say ""hi"", twice"\n')
    assert [row["b"] for row in rows_of(path)] == ['5" pipe', 'say "hi", twice']


def test_nameless_columns_get_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, ",x,\n1,2,\n")
    assert survey(path).columns == ("column 1", "x", "column 3")
    assert rows_of(path) == [{"column 1": "1", "x": "2", "column 3": None}]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,2\n")
    form = survey(path)
    written(tmp_path, "a,b\n1,3\n")
    with pytest.raises(BadInput, match="changed while it was being read"):
        list(read_chunks(path, form, 100))


def test_parquet_is_read_in_chunks_with_its_own_types(tmp_path: Path) -> None:
    table = pa.table({"id": list(range(250)), "x": [1.5] * 250, " name ": ["a"] * 250})
    pq.write_table(table, tmp_path / "a.parquet")
    chunks = read(tmp_path / "a.parquet")
    assert [chunk.table.num_rows for chunk in chunks] == [100, 100, 50]
    assert chunks[2].rows.tolist() == list(range(201, 251))
    assert chunks[0].table.column_names == ["id", "x", "name"]


def test_an_open_file_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n")
    assert not is_open_for_writing(path)
    with path.open("a"):
        assert is_open_for_writing(path)
    with path.open("r"):
        assert not is_open_for_writing(path)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_come_back_exactly(values: list[float]) -> None:
    text = [repr(value) for value in values]
    assert numbers(pa.array(text)).values.tolist() == values
    # A cell that is no number sends the column through the careful way, which must agree.
    careful = numbers(pa.array([*text, "letters"]))
    assert careful.values[:-1].tolist() == values
    assert careful.bad.tolist() == [len(values)]


@given(st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)), min_size=1))
def test_times_agree_in_every_spelling(moments: list[datetime]) -> None:
    expected = np.array([moment.replace(microsecond=0) for moment in moments], dtype="datetime64[us]")
    for spelling in (
        "%Y-%m-%d %H:%M:%S",
        "%Y/%m/%d %H:%M:%S",
        "%Y年%m月%d日 %H時%M分%S秒",
        "%Y%m%d%H%M%S",
        "%Y-%m-%dT%H:%M:%SZ",
    ):
        text = [moment.strftime(spelling) for moment in moments]
        assert (times(pa.array(text), "UTC").values == expected).all(), spelling


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24 09:00", "2026-11-24T00:00"),
        ("2026-11-24T09:00:00+09:00", "2026-11-24T00:00"),
        ("2026-11-24T00:00:00.25Z", "2026-11-24T00:00:00.250"),
        ("2026/1/5 9:05", "2026-01-05T00:05"),
        ("2026.01.05", "2026-01-04T15:00"),
        ("２０２６年１月５日　９時", None),
        ("2026年1月5日 9時05分", "2026-01-05T00:05"),
        ("20260105", "2026-01-04T15:00"),
        ("2026-02-29", None),
        ("2028-02-29", "2028-02-28T15:00"),
        ("2026-13-01", None),
        ("2026-11-24 25:00", None),
        ("03/04/2026", None),
        ("9999-12-31", None),
        ("1969-12-31", None),
        ("soon", None),
    ],
)
def test_times_of_a_plant_in_japan(text: str, expected: str | None) -> None:
    found = times(pa.array([text, "2026-01-01"]), "Asia/Tokyo")
    assert np.isnat(found.values[0]) if expected is None else found.values[0] == np.datetime64(expected)
    assert found.bad.tolist() == ([0] if expected is None else [])


def test_the_hour_that_comes_twice_or_never_is_read_all_the_same() -> None:
    found = times(pa.array(["2026-10-25 02:30", "2026-03-29 02:30"]), "Europe/Berlin").values
    assert found.tolist() == [datetime(2026, 10, 25, 0, 30), datetime(2026, 3, 29, 1, 0)]


def test_parquet_values_read_like_the_same_values_in_csv() -> None:
    moments = pa.array([datetime(2026, 1, 5, tzinfo=UTC), None], pa.timestamp("ns", "UTC"))
    assert times(moments, "Asia/Tokyo").values[0] == np.datetime64("2026-01-05")
    local = times(pa.array([datetime(2026, 1, 5)], pa.timestamp("ms")), "Asia/Tokyo")
    assert local.values[0] == np.datetime64("2026-01-04T15:00")
    assert as_text(pa.array([7.0, 7.5, None])).to_pylist() == ["7", "7.5", None]
    assert as_text(pa.array(["a", "b"]).dictionary_encode()).to_pylist() == ["a", "b"]
    assert as_text(pa.array([[1, 2], None])).to_pylist() == ["[1, 2]", None]
    assert numbers(pa.array([True, False, None])).values.tolist()[:2] == [1.0, 0.0]
    assert numbers(pa.array([1, None], pa.int64())).bad.tolist() == []


def test_hashes_are_the_same_in_every_process_and_version() -> None:
    # Kept in every row of every plant: another value here would make all rows look corrected.
    cells = [("a", text_hashes(pa.array(["M07", "検査", None]))), ("x", number_hashes(np.array([1.5, -0.0, np.nan])))]
    assert hex_text(row_hashes(3, cells)).to_pylist() == PINNED


PINNED = ["11bdde1fbe90ac1b95ee71f47ca0a775", "e01ea51b286c5f29ff03cc7f2b2ccc41", "5692161d100b05e5dbd238973a2b148a"]


def test_hashes_do_not_see_the_order_of_columns_nor_empty_ones() -> None:
    a, x = ("a", text_hashes(pa.array(["p", "q"]))), ("x", number_hashes(np.array([1.0, 2.0])))
    empty = ("z", text_hashes(pa.array([None, None], pa.string())))
    assert (row_hashes(2, [a, x]) == row_hashes(2, [x, empty, a])).all()
    assert (row_hashes(2, [a, x]) != row_hashes(2, [("b", a[1]), x])).any()


def test_swapped_cells_are_another_row() -> None:
    one = row_hashes(1, [("a", text_hashes(pa.array(["p"]))), ("b", text_hashes(pa.array(["q"])))])
    other = row_hashes(1, [("a", text_hashes(pa.array(["q"]))), ("b", text_hashes(pa.array(["p"])))])
    assert (one != other).all()


@given(st.lists(st.integers(0, 5), max_size=60))
def test_occurrences_count_up_in_order_of_the_rows(keys: list[int]) -> None:
    pairs = np.array([[key, key] for key in keys], dtype=np.uint64).reshape(-1, 2)
    expected = [keys[: position + 1].count(key) for position, key in enumerate(keys)]
    assert occurrence_numbers(pairs).tolist() == expected
