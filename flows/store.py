"""The tables of one model, kept as Delta tables: appended to exactly once, readable as they were at any version.

The only module that knows Delta Lake. Everything else asks questions in SQL (DuckDB) or for a pandas frame.
"""

# Queries are put together from our own words and from names that `quoted` has made safe.
# ruff: noqa: S608

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import pyarrow as pa
from cachetools import LRUCache

from flows.damage import refuse_empty_commits, refuse_log_without_start
from flows.disk import translated
from flows.engine import Engine, Layouts, duckdb_type, quoted, selection
from flows.errors import BadConfig, Unavailable
from flows.schemas import TABLES, as_arrow, conform, conform_stream, in_words, writing

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from deltalake import DeltaTable

__all__ = ["TABLES", "Store", "current_labels", "current_rows"]

_ATTEMPTS = 8
"""How often an append is tried while other processes write to the same table."""

ANSWERS = 16_000_000
"""Bytes of answers that are kept; a version of a table never changes, so an answer about versions stays true."""

_CONFIGURATION: Mapping[str, str | None] = {
    # Old log entries are what time travel reads; nothing may tidy them away behind our back.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


class Store:
    """The tables of one model under one folder or address.

    Parameters
    ----------
    folder: a folder, or an address such as ``s3://bucket/plant/line-a``.
    storage_options: what an object store needs (endpoint, keys), as Delta Lake names it.

    >>> import tempfile, pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder)
    ...     entry = pd.DataFrame({"key": ["a"], "action": ["promoted"]})
    ...     first, again = store.append("ledger", entry, key="a"), store.append("ledger", entry, key="a")
    ...     first, again, store.count("ledger"), store.read("ledger", columns=["action"])["action"].tolist()
    (True, False, 1, ['promoted'])
    """

    def __init__(self, folder: Path | str, storage_options: Mapping[str, str] | None = None) -> None:
        self.remote = "://" in str(folder)
        self.root = str(folder).rstrip("/") if self.remote else str(Path(folder).absolute())
        self.storage_options = dict(storage_options) if storage_options else None
        self._engine = Engine()
        self._answers: LRUCache[Hashable, pa.Table] = LRUCache(ANSWERS, getsizeof=lambda answer: answer.nbytes)
        self._opened: dict[str, tuple[tuple[int, ...], DeltaTable]] = {}
        self._layouts = Layouts()

    def append(self, table: str, frame: Any, *, key: str, distinct: Collection[str] = ()) -> bool:
        """Append rows exactly once for this table and key; `False`, and nothing written, when they are there already.

        Parameters
        ----------
        frame: a pandas frame, an Arrow table, or a ``RecordBatchReader`` (read once, in bounded memory).
            Declared columns that it lacks become nulls; columns new to the table are added to it.
        key: names the write: the file's SHA-256, a window, a run.
        distinct: text columns that hardly repeat a value; they are written faster when that is known.

        Raises
        ------
        BadConfig: a column holds another type than the table has kept so far.
        Unavailable: the disk is full, or other writers did not let go.
        """
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError

        # A stream cannot be rewound, so it has one attempt.
        streamed = isinstance(frame, pa.RecordBatchReader)
        data = conform_stream(frame, TABLES[table]) if streamed else conform(as_arrow(frame), TABLES[table])
        properties = CommitProperties(app_transactions=[Transaction(key, 1)], custom_metadata={"key": key})
        with translated(f"table {table}"):
            for attempt in range(1 if streamed else _ATTEMPTS):
                opened = self._open(table) or self._create(table)
                if opened.transaction_version(key) is not None:
                    return False
                self._refuse_other_types(table, opened, data.schema)
                try:
                    write_deltalake(
                        opened,
                        data,
                        mode="append",
                        schema_mode="merge",
                        commit_properties=properties,
                        writer_properties=writing(data.schema, distinct),
                    )
                    return True
                except CommitFailedError:
                    # Another process committed meanwhile: with our key (then we are done), or a new column.
                    time.sleep(0.05 * 2**attempt)
            if self.has(table, key):
                return False
        raise Unavailable(f"table {table} is being written by another process all the time; try again in a minute")

    def has(self, table: str, key: str) -> bool:
        """Whether the rows of `key` are in `table`."""
        opened = self._open(table)
        with translated(f"table {table}"):
            return opened is not None and opened.transaction_version(key) is not None

    def version_before(self, table: str, key: str) -> int | None:
        """The version that an append with this key started from: the present one where it has not happened yet.

        A write that is repeated after a crash compares with the same rows as the first time.
        """
        opened = self._open(table)
        if opened is None:
            return None
        with translated(f"table {table}"):
            commits = opened.history() if opened.transaction_version(key) is not None else []
        for commit in commits:
            if commit.get("key") == key:
                return int(commit["version"]) - 1
        return int(opened.version())

    def read(
        self,
        table: str,
        *,
        columns: list[str] | None = None,
        where: str | None = None,
        version: int | None = None,
        order: str | None = None,
    ) -> pd.DataFrame:
        """Rows of one table; an empty frame with the declared columns when there is none.

        Parameters
        ----------
        columns: which, and in which order; all when not given.
        where, order: SQL over the table's columns, for example ``"_seq >= 100"`` and ``"_seq"``. Without an order
            the rows come in any order: say one wherever it matters.
        version: the table as it was then; now when not given.
        """
        self._uri(table)  # refuses a name that is no table's
        query = selection(quoted(table), columns, where, order)
        return self.sql(query, versions={} if version is None else {table: version})

    def sql(self, query: str, *, versions: Mapping[str, int] | None = None, **tables: Any) -> pd.DataFrame:
        """The answer to a DuckDB query, in which every table of `TABLES` is a view under its name.

        Parameters
        ----------
        versions: table -> the version to read instead of the present one.
        tables: further frames (pandas or Arrow; a stream can be named once), known in the query by their keyword.
        """
        return cast("pd.DataFrame", self.arrow(query, versions=versions, **tables).to_pandas())

    def arrow(
        self, query: str, *, versions: Mapping[str, int] | None = None, spill: Path | None = None, **tables: Any
    ) -> pa.Table:
        """As `sql`, as an Arrow table (for many rows: no copy into pandas).

        Parameters
        ----------
        spill: a folder for intermediate results; with it the query keeps to 500 MB of memory.
        """
        words = set(re.findall(r"\w+", query))
        at = versions or {}
        with translated("the tables"):
            named = {name: self._open(name) for name in TABLES if name in words and name not in tables}
            question = None if tables or spill is not None else (query, *self._states(named, at))
            if question is not None and (known := self._answers.get(question)) is not None:
                return known
            with self._engine.connection(spill) as connection:
                for name, frame in tables.items():
                    connection.register(name, frame if isinstance(frame, pa.RecordBatchReader) else as_arrow(frame))
                for name, opened in named.items():
                    self._register(connection, name, opened if name not in at else self._open(name, at[name]))
                answer = connection.sql(query).to_arrow_table()
            if question is not None and answer.nbytes <= ANSWERS // 4:  # a larger one would push out all others
                self._answers[question] = answer
            return answer

    def version(self, table: str) -> int | None:
        """The present version of a table; None when it does not exist."""
        opened = self._open(table)
        return None if opened is None else int(opened.version())

    def readable(self, table: str, version: int) -> bool:
        """Whether a table can be read as it was at a version: that version and all of its files are there."""
        from deltalake.exceptions import DeltaError

        try:
            opened = self._open(table, version)
        except DeltaError:
            return False
        if opened is None:
            return False
        if not self.remote:
            return all(Path(unquote(name)).exists() for name in opened.file_uris())
        dataset = opened.to_pyarrow_dataset()
        return all(found.is_file for found in dataset.filesystem.get_file_info(dataset.files))

    def versions(self) -> dict[str, int]:
        """The present version of every table that exists."""
        found = {table: self.version(table) for table in TABLES}
        return {table: version for table, version in found.items() if version is not None}

    def count(self, table: str, where: str | None = None) -> int:
        """Number of rows, all or those for which the SQL condition holds."""
        query = f"SELECT count(*) AS n FROM {quoted(table)}" + (f" WHERE {where}" if where else "")
        return int(self.arrow(query)["n"][0].as_py())

    def columns(self, table: str) -> pa.Schema:
        """Columns and types of a table: the declared ones, and what the plant's files brought."""
        opened = self._open(table)
        return TABLES[table] if opened is None else pa.schema(opened.schema().to_arrow())

    def fragments(self) -> int:
        """Number of files of the table that has most; many small files make every query slow (see `compact`)."""
        opened = [self._open(table) for table in TABLES]
        return max((len(table.file_uris()) for table in opened if table is not None), default=0)

    def compact(self, keep: Mapping[str, set[int]], *, retention_hours: int = 24, min_files: int = 8) -> dict[str, int]:
        """Join small files, and remove files that no version in `keep` and no recent reader needs.

        Parameters
        ----------
        keep: table -> versions that must stay readable, for example those that a model was trained on.
        retention_hours: files let go of more recently than this stay too, for readers that run now.
        min_files: tables with fewer files stay as they are.

        Returns
        -------
        table -> number of files removed.
        """
        removed: dict[str, int] = {}
        for table in TABLES:
            opened = self._open(table)
            if opened is None:
                continue
            # The version that was newest until now stays readable too: a process may have just opened it.
            kept = {*keep.get(table, set()), int(opened.version())}
            with translated(f"table {table}"):
                if len(opened.file_uris()) >= min_files:
                    opened.optimize.compact()
                doomed = opened.vacuum(
                    retention_hours=retention_hours, enforce_retention_duration=False, keep_versions=sorted(kept)
                )
                if doomed:
                    opened.vacuum(
                        retention_hours=retention_hours,
                        enforce_retention_duration=False,
                        dry_run=False,
                        keep_versions=sorted(kept),
                    )
            removed[table] = len(doomed)
        return removed

    # -- inside ---------------------------------------------------------------------------------------------------

    def _uri(self, table: str) -> str:
        if table not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}; {table!r} is none of them")
        return f"{self.root}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        with translated(f"table {table}"):
            return self._found(table, version)

    def _found(self, table: str, version: int | None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        uri = self._uri(table)
        which = (os.getpid(), 0, 0)
        if not self.remote:
            # Asking the file system is far cheaper than having Delta Lake look for a log.
            try:
                made = Path(uri, "_delta_log", f"{0:020}.json").stat()
            except FileNotFoundError:
                refuse_log_without_start(table, Path(uri))
                return None
            which = (os.getpid(), made.st_ino, made.st_mtime_ns)
        if version is None and (known := self._opened.get(table)) is not None and known[0] == which:
            # Reading what was committed since is far cheaper than the whole log again; another process, or a table
            # that was made anew under the same name, has to read it all. Delta Lake lists the log first, which only
            # grows: where nothing was committed, it is not asked.
            if self.remote or refuse_empty_commits(table, Path(uri), since=known[1].version()):
                known[1].update_incremental()
            return known[1]
        if not self.remote:
            refuse_empty_commits(table, Path(uri))
        try:
            opened = DeltaTable(uri, version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        if version is None:
            self._opened[table] = (which, opened)
        return opened

    def _create(self, table: str) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError

        # Where two processes make the same table at once, one fails and finds it made.
        with suppress(CommitFailedError):
            DeltaTable.create(
                self._uri(table),
                schema=TABLES[table],
                mode="ignore",
                configuration=_CONFIGURATION,
                storage_options=self.storage_options,
            )
        return DeltaTable(self._uri(table), storage_options=self.storage_options)

    def _refuse_other_types(self, table: str, opened: DeltaTable, schema: pa.Schema) -> None:
        kept = pa.schema(opened.schema().to_arrow())
        for field in schema:
            if field.name in kept.names and field.name not in TABLES[table].names:
                before, after = kept.field(field.name).type, field.type
                if before != after:
                    raise BadConfig(
                        f"column {field.name!r} of table {table} was kept as {in_words(before)} so far and would now "
                        f"be {in_words(after)}; list it in the config as before, or rename the new kind of column"
                    )

    def _states(self, named: Mapping[str, DeltaTable | None], at: Mapping[str, int]) -> Iterator[Hashable]:
        """What the tables of a query are now: which table under each name, and its version."""
        for name, opened in named.items():
            yield name, None if opened is None else (self._opened[name][0], at.get(name, opened.version()))

    def _register(self, connection: duckdb.DuckDBPyConnection, table: str, opened: DeltaTable | None) -> None:
        files = [] if opened is None else sorted(opened.file_uris())
        if opened is None or not files:
            schema = TABLES[table] if opened is None else pa.schema(opened.schema().to_arrow())
            connection.register(table, schema.empty_table())
            return
        present = pa.schema(opened.schema().to_arrow())
        absent = [field for field in TABLES[table] if field.name not in present.names]
        if self.remote:
            # DuckDB reads an object store only with an extension that it would download; Arrow reads it as it is.
            connection.register(f"_{table}_files", opened.to_pyarrow_dataset())
            source = f'"_{table}_files"'
        else:
            # Delta Lake gives addresses, in which spaces and the like are escaped.
            source = self._layouts.source([unquote(name) for name in files])
        extra = "".join(f", NULL::{duckdb_type(field.type)} AS {quoted(field.name)}" for field in absent)
        connection.execute(f"CREATE TEMP VIEW {quoted(table)} AS SELECT *{extra} FROM {source}")


def current_rows(
    store: Store,
    *,
    columns: list[str] | None = None,
    where: str | None = None,
    version: int | None = None,
    ordered: bool = True,
) -> pd.DataFrame:
    """The newest version of every inspection, in order of arrival.

    Parameters
    ----------
    columns, where: as in `Store.read`; the condition is applied to the newest versions.
    version: of the table `inspections`, to see what was the newest then.
    ordered: False gives the rows in any order, which takes the engine far less memory where they are many and wide.
    """
    return _newest(store, "inspections", selection("t", columns, where, "_seq, _id" if ordered else None), version)


def current_labels(
    store: Store, *, columns: list[str] | None = None, where: str | None = None, version: int | None = None
) -> pd.DataFrame:
    """The newest label of every id, also of ids whose inspection has not come yet; ordered by id."""
    return _newest(store, "labels", selection("t", columns, where, "_id"), version)


def _newest(store: Store, table: str, chosen: str, version: int | None) -> pd.DataFrame:
    # Few ids have a second version: joining those few is far cheaper than ranking all rows.
    query = (
        f"WITH newest AS (SELECT _id, max(_version) AS top FROM {table} WHERE _version > 1 GROUP BY _id), "
        f"t AS (SELECT r.* FROM {table} r LEFT JOIN newest n USING (_id) WHERE n.top IS NULL OR r._version = n.top) "
        + chosen
    )
    return store.sql(query, versions={} if version is None else {table: version})
