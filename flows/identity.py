"""Which staged rows are new, corrections, or there already; and which of a file's rows contradict one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.rows import hex_text, occurrence_numbers
from flows.staging import HELD, SKIPPED, TAKEN, Staging
from flows.store import Store

ID_COLUMNS = ["_id", "_hash_1", "_hash_2"]
"""Staged columns out of which `id_texts` makes ids."""

_BLOCK = 1_000_000
"""Ids that are looked up at a time."""

_FEW_ROWS = 50_000
"""Staged rows that may be held in memory whole."""


@dataclass(frozen=True)
class Conflict:
    """A row whose id stands in the file once more, with other content.

    Attributes
    ----------
    index: position among the staged rows. others: numbers of the other data rows, at most five.
    """

    index: int
    id: str
    others: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """How the staged rows stand to what the table held before.

    Attributes
    ----------
    version: (n,) int32 of the row's own version, 1 for a new id.
    seq: (n,) int64, -1 for a new id, else the order number of the id that is corrected or repeated.
    """

    version: np.ndarray
    seq: np.ndarray


def settle_repeats(staged: Staging, broken_ids: np.ndarray) -> list[Conflict]:
    """Decide on ids that stand in the file more than once, and mark the rows.

    Rows that are alike: the first is taken, the others are skipped. Rows that differ: all are held, since nobody can
    tell which of them is right. A row that was held for another reason counts as one that differs.

    Parameters
    ----------
    broken_ids: hashes of the ids of rows that were held before.
    """
    candidates = _repeated(staged.ids, broken_ids)
    if not len(candidates):
        return []
    # Hashes of different ids could agree by chance, so the few candidates are told apart by the ids themselves.
    groups: dict[str, list[int]] = {}
    says: dict[int, tuple[Any, ...]] = {}
    for index, name, content in _contents(staged, candidates):
        groups.setdefault(name, []).append(index)
        says[index] = content
    broken = set(broken_ids.tolist())
    conflicts: list[Conflict] = []
    for name, members in groups.items():
        first = members[0]
        alike = all(says[index] == says[first] for index in members)
        if alike and int(staged.ids[first]) not in broken:
            staged.fate[members[1:]] = SKIPPED
            continue
        staged.fate[members] = HELD
        numbers = staged.rows[members].tolist()
        for index, own in zip(members, numbers, strict=True):
            conflicts.append(Conflict(index, name, tuple([other for other in numbers if other != own][:5])))
    return conflicts


def _repeated(ids: np.ndarray, broken_ids: np.ndarray) -> np.ndarray:
    """Positions, in order, of ids that stand there more than once or are among the broken ones; 0 is no id.

    >>> _repeated(np.array([5, 0, 7, 5, 0, 9], dtype=np.uint64), np.array([9, 0], dtype=np.uint64))
    array([0, 3, 5])
    """
    ordered = np.sort(ids)
    values = np.unique(np.concatenate([ordered[1:][ordered[1:] == ordered[:-1]], broken_ids]))
    values = values[values != 0]
    del ordered
    found = [np.zeros(0, dtype=np.int64)]
    # By block: a file of millions of rows has few such ids, and whole columns beside each other take much memory.
    for start in range(0, len(ids) if len(values) else 0, _BLOCK):
        some = ids[start : start + _BLOCK]
        place = np.searchsorted(values, some).clip(max=len(values) - 1)
        found.append(start + np.flatnonzero(values[place] == some))
    return np.concatenate(found)


def content_ids(staged: Staging) -> np.ndarray:
    """(n,) occurrence numbers that, after the content's hash, make the ids of a file without an id column."""
    keys = np.zeros((len(staged), 2), dtype=np.uint64)
    for part, table in staged.chunks(["_hash_1", "_hash_2"]):
        keys[part] = staged.content(table)
    return occurrence_numbers(keys)


def id_texts(part: slice, table: pa.Table, occurrences: np.ndarray | None) -> pa.Array:
    """The ids of one chunk: its id column, or content hash and occurrence number."""
    if occurrences is None:
        return table["_id"].combine_chunks()
    numbers = pa.array(occurrences[part]).cast(pa.string())
    return pc.binary_join_element_wise(hex_text(Staging.content(table)), numbers, "-")


def beside_staged(
    store: Store,
    query: str,
    versions: Mapping[str, int],
    staged: Staging,
    build: Callable[[slice, pa.Table], pa.Table | None],
    columns: Sequence[str],
) -> pa.Table:
    """The answer to a query that joins tables with `staged`, what `build` makes of a file's rows.

    A file of many rows is streamed, with a folder for what does not fit into memory; a table that few rows are looked
    up in streams past them, whatever its size, and needs no engine of its own, which takes longer to start than that.
    """
    rows = staged.stream(build, columns)
    if len(staged) > _FEW_ROWS:
        return store.arrow(query, versions=versions, spill=staged.folder, staged=rows)
    return store.arrow(query, versions=versions, staged=rows.read_all())


def match_existing(store: Store, version: int | None, staged: Staging, occurrences: np.ndarray | None) -> Match:
    """Compare the staged rows with the newest version of every inspection, and mark those that are there already.

    Parameters
    ----------
    version: of the table, as it was before this file; None where there is no table.
    """
    count = len(staged)
    match = Match(np.ones(count, dtype=np.int32), np.full(count, -1, dtype=np.int64))
    if version is None or not count:
        return match

    def keys(part: slice, table: pa.Table) -> pa.Table:
        return pa.table(
            {
                "n": pa.array(np.arange(part.start, part.stop)),
                "_id": id_texts(part, table, occurrences),
                "_hash": hex_text(Staging.content(table)),
            }
        )

    query = """
        SELECT staged.n, max(i._version) AS top, min(i._seq) AS seq,
            arg_max(i._hash, i._version) = any_value(staged._hash) AS same
        FROM staged JOIN (SELECT _id, _hash, _version, _seq FROM inspections) i USING (_id) GROUP BY staged.n
    """
    found = beside_staged(store, query, {"inspections": version}, staged, keys, ID_COLUMNS)
    where = found["n"].to_numpy()
    same = found["same"].to_numpy()
    match.version[where] = found["top"].to_numpy() + np.where(same, 0, 1)
    match.seq[where] = found["seq"].to_numpy()
    repeats = where[same & (staged.fate[where] == TAKEN)]
    staged.fate[repeats] = SKIPPED
    return match


def sequence_numbers(match: Match, staged: Staging, first: int) -> np.ndarray:
    """(n,) order numbers: a correction keeps the one of its id, new ids count on from `first`."""
    fresh = (staged.fate == TAKEN) & (match.seq < 0)
    numbers = match.seq.copy()
    numbers[fresh] = first + np.arange(int(fresh.sum()))
    return numbers


def ids_at(staged: Staging, positions: np.ndarray, occurrences: np.ndarray | None) -> dict[int, str | None]:
    """Position -> id, for some staged rows; None where ids come from the content and are not counted yet."""
    found: dict[int, str | None] = {}
    for part, table in staged.chunks(ID_COLUMNS):
        inside = positions[(positions >= part.start) & (positions < part.stop)]
        if len(inside):
            texts = id_texts(part, table, occurrences).take(pa.array(inside - part.start)).to_pylist()
            found.update(zip(inside.tolist(), texts, strict=True))
    return found


def _contents(staged: Staging, indices: np.ndarray) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
    """(position, id, what the row says, label included) of some staged rows."""
    for part, table in staged.chunks(["_id", "_hash_1", "_hash_2", "_label"]):
        inside = indices[(indices >= part.start) & (indices < part.stop)]
        if len(inside):
            rows = table.take(pa.array(inside - part.start)).to_pydict()
            said = zip(rows["_hash_1"], rows["_hash_2"], rows["_label"], strict=True)
            yield from zip(inside.tolist(), rows["_id"], said, strict=True)
