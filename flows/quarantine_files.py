"""Quarantined rows as a file that a person repairs in a spreadsheet, and back again.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and runs it. Such cells get an apostrophe in
front, which is taken off again when the file comes back; plain numbers stay as they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.bytes import check_there
from flows.errors import BadConfig, BadInput
from flows.quarantine import RELEASED, HeldRow, all_rows, let_go
from flows.workspace import write_atomically

if TYPE_CHECKING:
    from flows.context import Context
    from flows.ingest import IngestReport

KEY, WHY, TEXT = "quarantine_key", "quarantine_reasons", "quarantine_text"
"""Columns of an exported file beside the plant's own: the row's key, why it is held, and the text of a broken line."""

_RISKY = re.compile(r"^'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$")


@dataclass(frozen=True)
class Released:
    """Rows that left quarantine, and the file by which they were taken in."""

    rows: int
    already: int
    report: IngestReport | None


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula.

    >>> [safe_cell(text) for text in ("=1+1", "-5.3", "@SUM(A1)", "M07", "'=x")]
    ["'=1+1", '-5.3', "'@SUM(A1)", 'M07', "''=x"]
    """
    return f"'{text}" if _RISKY.match(text) and not _NUMBER.match(text) else text


def plain_cell(text: str) -> str:
    """What `safe_cell` was given.

    >>> [plain_cell(safe_cell(text)) for text in ("=1+1", "-5.3", "'=x", "'ok'")]
    ['=1+1', '-5.3', "'=x", "'ok'"]
    """
    return text[1:] if text.startswith("'") and _RISKY.match(text[1:]) else text


def exported(rows: Sequence[HeldRow]) -> bytes:
    """The rows as CSV in UTF-8 with a mark, as spreadsheets read it."""
    columns = list(dict.fromkeys(name for row in rows for name in row.record if name))
    broken = any("" in row.record for row in rows)
    taken = [name for name in (KEY, WHY, TEXT) if name in columns]
    if taken:
        raise BadConfig(f"the rows have a column {taken[0]!r} of their own, which this export needs; rename it")
    head = [KEY, WHY, *([TEXT] if broken else []), *columns]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(safe_cell(name) for name in head)
    for row in rows:
        cells = {KEY: row.key, WHY: row.why, TEXT: row.record.get(""), **row.record}
        writer.writerow(safe_cell(_text(cells.get(name))) for name in head)
    return b"\xef\xbb\xbf" + buffer.getvalue().encode()


def release_repaired(context: Context, path: Path, *, actor: str, reason: str, named: str, now: datetime) -> Released:
    """Take in the repaired rows of an exported file; all of them, or none.

    Raises
    ------
    BadConfig: the file has no column of keys, or a key that the quarantine does not have.
    BadInput: a row still does not hold; nothing was taken in.
    """
    from flows.readers import read_chunks, survey

    check_there(path)
    form = survey(path, [KEY])
    if KEY not in form.columns:
        raise BadConfig(
            f"{path.name} has no column {KEY!r}; it is written by `softad quarantine export FILE`, and is needed to "
            "know which rows are repaired"
        )
    columns = [name for name in form.columns if name not in {KEY, WHY, TEXT}]
    keys: list[str] = []
    cells: list[list[str]] = []
    for chunk in read_chunks(path, form, context.settings.ingest.chunk_rows):
        if chunk.ragged:
            raise BadInput(f"{path.name}: row {chunk.ragged[0].row} does not fit the header; mend it, and try again")
        for record in chunk.table.to_pylist():
            keys.append(plain_cell(_text(record[KEY])).strip())
            cells.append([plain_cell(_text(record[name])) for name in columns])
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise BadConfig(f"{path.name}: the key {twice[0]!r} stands in more than one row; leave one of them")
    known = {row.key: row for row in all_rows(context.store)}
    missing = [key for key in keys if key not in known]
    if missing:
        raise BadConfig(f"{path.name}: the quarantine has no row {missing[0]!r}; export it again")
    rows = [known[key] for key in keys]
    return _taken_in(
        context, rows, [plain_cell(name) for name in columns], cells, file=path.name, actor=actor,
        reason=reason or f"repaired in {path.name}", named=named, now=now,
    )  # fmt: skip


def release_unchanged(
    context: Context, rows: Sequence[HeldRow], *, actor: str, reason: str, named: str, now: datetime
) -> Released:
    """Take in rows as they are: the plant's rules are not asked, what cannot be read stays out. All of them, or none.

    Raises
    ------
    BadInput: a value cannot be read at all, or rows of whole files and of label files are mixed.
    """
    if any("" in row.record for row in rows):
        broken = next(row for row in rows if "" in row.record)
        raise BadInput(f"{broken.key} is a line that does not fit its file's header; export it and repair it")
    if len({row.delivered for row in rows}) > 1:
        raise BadInput("some of these rows come from label files and some do not; release them one kind at a time")
    columns = list(dict.fromkeys(name for row in rows for name in row.record))
    cells = [[_text(row.record.get(name)) for name in columns] for row in rows]
    return _taken_in(context, rows, columns, cells, file=None, actor=actor, reason=reason, named=named, now=now)


def _taken_in(
    context: Context, rows: Sequence[HeldRow], columns: list[str], cells: list[list[str]], *, file: str | None,
    actor: str, reason: str, named: str, now: datetime,
) -> Released:  # fmt: skip
    """The rows as a file of their own, through the same ingest as any other; the ledger last.

    Parameters
    ----------
    file: in which they were repaired; None: they are taken in as they are, and the plant's rules are not asked.
    """
    from flows.ingest import check_file, ingest_file

    checked = file is not None
    held = [(row, line) for row, line in zip(rows, cells, strict=True) if row.state == "held"]
    discarded = next((row for row in rows if row.state == "discarded"), None)
    if discarded is not None:
        raise BadConfig(f"{discarded.key} was discarded by {discarded.by} ({discarded.note}); it stays so")
    if not held:
        return Released(0, len(rows), None)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows(line for _, line in held)
    data = buffer.getvalue().encode()
    name = f"{'repaired' if checked else 'released'}-{hashlib.sha256(data).hexdigest()[:12]}.csv"
    folder = context.workspace.archive / "quarantine"
    write_atomically(folder / name, data)
    settings = context.settings
    ingest = settings.ingest.model_copy(
        update={"max_bad_share": 0.0, "settle_seconds": 0.0} | ({} if checked else {"expectations": None})
    )
    strict = settings.model_copy(update={"ingest": ingest})
    try:
        check_file(folder / name, strict, context.workspace, now=now)
    except BadInput as error:
        (folder / name).unlink()
        raise BadInput(_nothing_released(str(error), rows, name=name, file=file)) from error
    report = ingest_file(folder / name, strict, context.store, context.workspace, now=now)
    let_go(
        context.store, [row for row, _ in held], action=RELEASED, actor=actor, reason=reason, now=now,
        details={"into": report.sha, "name": name, "rules": "kept" if checked else "not asked", "named": named},
    )  # fmt: skip
    return Released(len(held), len(rows) - len(held), report)


def _nothing_released(sentence: str, rows: Sequence[HeldRow], *, name: str, file: str | None) -> str:
    """A sentence of the ingest on the file that we made, in terms of what the person named.

    Parameters
    ----------
    name: of the file that we made of those of `rows` that are still held.
    file: that the person repaired; None where rows were named by their keys.
    """
    places = [place for place, row in enumerate(rows, start=1) if row.state == "held"]
    found = re.search(r"first row (\d+)", sentence)
    if found is None or int(found[1]) > len(places):
        return f"nothing was released: {sentence.replace(name, file or 'the rows')}"
    place = places[int(found[1]) - 1]
    way = "mend it, and release the file again" if file else "export it, repair it, and release the file"
    told = sentence.replace(found[0], f"row {place}" if file else "").replace(f"{name}: ", f"{file}, " if file else "")
    return f"nothing was released, {rows[place - 1].key} does not hold: {told.removeprefix(', ')}; {way}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
