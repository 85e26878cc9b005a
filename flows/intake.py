"""One file from its survey to the tables: read and checked by chunk, staged, judged as a whole, committed once.

Nothing is written to a table before the share of bad rows is known. Then each table gets one commit, the table of
files last: its row says that all the others are there. A crash in between leaves some tables with their commit and
some without; the same file again finds the same rows to compare with, writes what is missing, and ends the same.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from flows.disk import translated
from flows.errors import BadInput
from flows.findings import Held, quarantine_table, reason
from flows.identity import Conflict, ids_at, settle_repeats
from flows.prepare import Prepared, raw_records
from flows.readers import FileFormat, RawChunk, read_chunks
from flows.rules import Rule
from flows.settings import Settings
from flows.staging import HELD, Staging
from flows.validate import BrokenRule, Checker
from flows.whole_file import Late, late_reasons

Kind = Literal["inspections", "labels"]
T = TypeVar("T")


class Steps(Protocol):
    """What each chunk goes through: cells to values, then values against the rules."""

    def coerce(self, chunk: RawChunk) -> Any:
        """Turn cells into values."""

    def judge(self, cells: Any) -> Prepared:
        """Part the rows that hold from those that do not."""


@dataclass
class Aside:
    """Rows for quarantine, on disk until the commit.

    Attributes
    ----------
    rows: how many. first: the one with the lowest row number.
    """

    folder: Path
    kind: Kind
    rows: int = 0
    first: Held | None = None
    files: list[Path] = field(default_factory=list)

    def add(self, rows: Iterable[Held], *, sha: str, now: datetime) -> None:
        """Put rows aside; they are in order of their row numbers."""
        rest = iter(rows)
        while some := list(itertools.islice(rest, 1000)):
            self.rows += len(some)
            self.first = min([item for item in (self.first, some[0]) if item is not None], key=lambda item: item.row)
            path = self.folder / f"{self.kind}-held-{len(self.files):06d}.arrow"
            table = quarantine_table(some, sha=sha, kind=self.kind, at=now)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
                out.write_table(table)
            self.files.append(path)

    def tables(self) -> Iterator[pa.Table]:
        """The rows as rows of the table `quarantine`, a bounded number at a time."""
        for path in self.files:
            with pa.OSFile(str(path)) as source:
                yield pa.ipc.open_file(source).read_all()


@dataclass
class Taken:
    """What one file turned out to hold.

    Attributes
    ----------
    held: rows for quarantine. labels: labels for quarantine, whose rows are taken in without them.
    bad: rows that count against `ingest.max_bad_share`: a class that nobody has added yet does not.
    reasons: (rule, column) -> rows.
    """

    staged: Staging
    held: Aside
    labels: Aside
    read: int = 0
    bad: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    warned: dict[str, tuple[Rule, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Intake:
    """How one file is read: what it is, what it must fulfil, where it goes."""

    path: Path
    form: FileFormat
    kind: Kind
    settings: Settings
    checker: Checker
    prepare: Steps
    now: datetime

    def read(self, staged: Staging) -> Taken:
        """Read, check and stage the whole file, and decide which rows are held.

        Raises
        ------
        BadInput: no rows, too many bad rows, a rule about the whole does not hold, or the file changed meanwhile.
        """
        sha, now = self.form.sha, self.now
        taken = Taken(staged, Aside(staged.folder, self.kind), Aside(staged.folder, "labels"))
        broken_ids: list[np.ndarray] = []
        deferred: list[tuple[Rule, np.ndarray, Any]] = []
        checked: Counter[str] = Counter()
        self._refuse_broken(taken, self.checker.header(self.form.columns, set(self.settings.data.numeric)))
        with translated(self.path.name):
            chunks = read_chunks(self.path, self.form, self.settings.ingest.chunk_rows)
            # Reading and coercion run in a thread beside the rules: two processors share the work.
            for cells in ahead(map(self.prepare.coerce, chunks)):
                made = self.prepare.judge(cells)
                taken.read += made.read
                staged.add(made.table, made.content, made.ids)
                taken.bad += made.bad
                taken.reasons.update(made.reasons)
                # Refused before its rows are written down one by one, where there are too many already.
                self._refuse_bad_share(taken, self.form.most_rows, made.held)
                taken.held.add(made.held, sha=sha, now=now)
                taken.labels.add(made.labels_held, sha=sha, now=now)
                broken_ids.append(made.broken_ids)
                deferred.extend(made.deferred)
                checked.update(made.checked)
                _count_warnings(taken, made.warned)
            staged.seal()
            if not taken.read:
                raise BadInput(f"{self.path.name} has a header but no rows; export it again")
            conflicts = settle_repeats(staged, np.concatenate(broken_ids)) if self._has_ids else []
            late = self._late(taken, conflicts, deferred, dict(checked))
            self._hold_late(taken, late)
        self._refuse_bad_share(taken, taken.read, ())
        return taken

    @property
    def _has_ids(self) -> bool:
        return self.kind == "labels" or self.settings.data.id is not None

    def _late(
        self,
        taken: Taken,
        conflicts: list[Conflict],
        deferred: list[tuple[Rule, np.ndarray, Any]],
        checked: dict[str, int],
    ) -> Late:
        late: Late = {item.index: [_conflict_reason(item, self.settings)] for item in conflicts}
        if self.kind == "labels":
            return late
        more, broken = late_reasons(taken.staged, self.checker, self.settings, deferred, checked)
        self._refuse_broken(taken, [*broken, *self.checker.count(taken.read)])
        for position, reasons in more.items():
            late.setdefault(position, []).extend(reasons)
        return late

    def _refuse_broken(self, taken: Taken, broken: list[BrokenRule]) -> None:
        for item in broken:
            if item.rule.severity != "critical":
                taken.warned[item.rule.name] = (item.rule, 0, 0)
                continue
            raise BadInput(
                f"{self.path.name}: the rule {item.rule.name!r} about the whole file does not hold (found "
                f"{item.observed}), so the file is held back; mend the export, or the rule in "
                f"{self.settings.ingest.expectations}"
            )

    def _hold_late(self, taken: Taken, late: Late) -> None:
        """Hold rows that were staged; their raw text is read from the file once more, which is still the same."""
        if not late:
            return
        staged = taken.staged
        staged.fate[list(late)] = HELD
        wanted = {int(staged.rows[position]): position for position in sorted(late)}
        ids = ids_at(staged, np.array(sorted(late), dtype=np.int64), None)
        numbers = np.array(sorted(wanted), dtype=np.int64)
        for chunk in read_chunks(self.path, self.form, self.settings.ingest.chunk_rows):
            places = np.flatnonzero(np.isin(chunk.rows, numbers))
            if not len(places):
                continue
            rows = chunk.rows[places].tolist()
            records = raw_records(chunk.table, places)
            held = [Held(row, ids[wanted[row]], late[wanted[row]], rec) for row, rec in zip(rows, records, strict=True)]
            taken.held.add(held, sha=self.form.sha, now=self.now)
            taken.bad += len(held)
            taken.reasons.update((entry["rule"], entry["column"]) for item in held for entry in item.reasons)

    def _refuse_bad_share(self, taken: Taken, rows: int, more: Iterable[Held]) -> None:
        """Refuse the file when too many of its rows are bad; `rows` are all of it, or the most that it can have.

        Where those read so far are too many already, the rest need not be read.

        Parameters
        ----------
        more: rows that are counted already, but not put aside yet.
        """
        allowed = self.settings.ingest.max_bad_share
        if taken.bad <= allowed * rows:
            return
        first = taken.held.first or next(iter(more))
        (rule, column), count = taken.reasons.most_common(1)[0]
        share = f"{taken.bad} of {taken.read} rows are bad ({taken.bad / taken.read:.0%}, allowed is {allowed:.0%})"
        if rows != taken.read:
            share = f"{taken.bad} of the first {taken.read} rows are bad (allowed is {allowed:.0%} of the whole file)"
        where = f"column {column!r}, " if column else ""
        raise BadInput(
            f"{self.path.name}: {share}, so the whole file is held back and nothing of it was taken in; most often "
            f"{where}rule {rule!r} ({count} {'row' if count == 1 else 'rows'}); first "
            f"{describe(first)}; mend the export, or raise ingest.max_bad_share"
        )


def describe(item: Held) -> str:
    """Where and what the first reason of a held row is.

    >>> describe(Held(7, "A1", [reason("number", "x", "abc", "'abc' is not a number")], "{}"))
    "row 7, column 'x': 'abc' is not a number"
    """
    first = item.reasons[0]
    where = f", column {first['column']!r}" if first["column"] else ""
    return f"row {item.row}{where}: {first['message']}"


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made by another thread while this one is worked on, and no more than that one.

    >>> list(ahead(iter([1, 2, 3])))
    [1, 2, 3]
    """
    made: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    # One that waits beside the one being worked on is memory for nothing.
    wanted = threading.Semaphore(1)
    stopped = threading.Event()

    def work() -> None:
        try:
            while True:
                wanted.acquire()
                if stopped.is_set():
                    return
                made.put((next(items), None))
        except BaseException as error:  # the end among them; handed over, and raised where the items are used
            made.put((None, error))

    worker = threading.Thread(target=work, name="reader", daemon=True)
    worker.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.release()
            yield item  # type: ignore[misc]
            item = None
    finally:
        stopped.set()
        wanted.release()
        worker.join()


def _conflict_reason(item: Conflict, settings: Settings) -> dict[str, Any]:
    if item.others:
        rows = "row " + str(item.others[0]) if len(item.others) == 1 else "rows " + ", ".join(map(str, item.others))
        message = f"the id {item.id!r} stands in {rows} too, with other content"
    else:
        message = f"the id {item.id!r} stands in another row too, which is bad"
    return reason("same id", settings.data.id or "id", item.id, message)


def _count_warnings(taken: Taken, warned: list[tuple[Rule, np.ndarray]]) -> None:
    for rule, rows in warned:
        if len(rows):
            _, count, first = taken.warned.get(rule.name, (rule, 0, int(rows[0])))
            taken.warned[rule.name] = (rule, count + len(rows), first)
