"""The query engine: DuckDB in this process, kept open from one query to the next."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from cachetools import LRUCache

if TYPE_CHECKING:
    import duckdb

_OPEN: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Starts DuckDB at the first query and keeps it: starting takes longer than a small query.

    Each query has a connection of its own, with views that only it sees. A forked process starts its own engine.

    >>> with Engine().connection() as connection:
    ...     connection.sql("SELECT 1 AS one").fetchall()
    [(1,)]
    """

    def __init__(self) -> None:
        self._kept: duckdb.DuckDBPyConnection | None = None
        self._process = 0

    @contextmanager
    def connection(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one query.

        Parameters
        ----------
        spill: a folder for intermediate results. Such a query has an engine of its own that keeps to 500 MB, since
            limits and folders are the engine's, and the folder goes with the query.
        """
        if spill is not None:
            limits = {"memory_limit": "500MB", "temp_directory": str(spill)}
            with _started(limits) as connection:
                yield connection
            return
        if self._kept is None or self._process != os.getpid():
            self._kept, self._process = _started({}), os.getpid()
            _OPEN.add(self)
        with self._kept.cursor() as connection:
            connection.execute("SET TimeZone='UTC'")
            yield connection

    def close(self) -> None:
        """Let the engine go; the next query starts another."""
        self._kept = None


class Layouts:
    """Which Parquet files have the same columns: what lies under a name is never written anew, so it is read once.

    Joining files by their columns' names doubles a small query's time, and is needed only where a column came later.

    >>> Layouts().source(["/no/such/file.parquet"])
    "read_parquet(['/no/such/file.parquet'], hive_partitioning = false, union_by_name = true)"
    """

    def __init__(self) -> None:
        self._known: LRUCache[str, Hashable] = LRUCache(10_000)

    def source(self, files: Sequence[str]) -> str:
        """The files as a table in SQL, whose columns are those of all of them."""
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        union = "" if self.agree(files) else ", union_by_name = true"
        return f"read_parquet([{listed}], hive_partitioning = false{union})"

    def agree(self, files: Sequence[str]) -> bool:
        """Whether all have the same columns and types; False where one cannot be read, of which DuckDB will tell."""
        import pyarrow.parquet as pq

        found: set[Hashable] = set()
        for file in files:
            layout = self._known.get(file)
            if layout is None:
                try:
                    schema = pq.read_schema(file)
                except (OSError, pa.ArrowInvalid):
                    return False
                layout = self._known[file] = tuple((field.name, field.type) for field in schema)
            found.add(layout)
            if len(found) > 1:
                return False
        return True


def _started(options: dict[str, str]) -> duckdb.DuckDBPyConnection:
    import duckdb

    engine = duckdb.connect(config={"autoinstall_known_extensions": "false", "threads": "2", **options})
    engine.execute("SET TimeZone='UTC'")
    # Delta Lake never writes a file anew under the same name, so what was read of one stays true.
    engine.execute(
        "SET GLOBAL parquet_metadata_cache = true; SET GLOBAL validate_external_file_cache = 'NO_VALIDATION'"
    )
    return engine


@atexit.register
def _let_go() -> None:
    """An engine that is still held when the interpreter goes down is reported by its library as a leak."""
    for engine in list(_OPEN):
        engine.close()


def quoted(name: str) -> str:
    """A column or table name as SQL takes it, whatever characters it has.

    >>> quoted('Torque [Nm]'), quoted('a"b')
    ('"Torque [Nm]"', '"a""b"')
    """
    return '"' + name.replace('"', '""') + '"'


def selection(source: str, columns: list[str] | None, where: str | None, order: str | None) -> str:
    """A query over one table, put together from what the caller says.

    >>> print(selection("labels", ["_id"], "label = 'OK'", "_id"))
    SELECT "_id" FROM labels WHERE label = 'OK' ORDER BY _id
    """
    chosen = "*" if columns is None else ", ".join(quoted(name) for name in columns)
    query = f"SELECT {chosen} FROM {source}"  # noqa: S608 (names are quoted)
    return query + (f" WHERE {where}" if where else "") + (f" ORDER BY {order}" if order else "")


def duckdb_type(kind: pa.DataType) -> str:
    """The name of an Arrow type of ours in SQL.

    >>> duckdb_type(pa.string())
    'VARCHAR'
    """
    names = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
        pa.list_(pa.float32()): "FLOAT[]",
    }
    return names[kind]
