"""Rows between reading and committing: on disk by chunk, with a few numbers for each row in memory.

What is in memory grows by some 13 bytes a row; everything else stays in bounds whatever the file's length.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.disk import translated
from flows.workspace import Workspace

TAKEN, SKIPPED, HELD = 0, 1, 2
"""What becomes of a staged row: it is taken in, skipped as there already, or held in quarantine."""


_BATCH = 16_384

_PIECE = 50_000
"""Rows of a file in staging: who writes them to a table holds a few such files, whatever the chunks were."""


class Staging:
    """The rows of one file that passed every check of a single row.

    Attributes
    ----------
    rows: (n,) number of the data row. ids: (n,) uint64, hash of the id.
    fate: (n,) int8, one of `TAKEN`, `SKIPPED`, `HELD`.
    schema: of the staged rows; their content's hash is in the columns `_hash_1` and `_hash_2`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lengths: list[int] = []
        self._rows: list[np.ndarray] = []
        self._ids: list[np.ndarray] = []
        self.schema = pa.schema([])
        self.rows = np.zeros(0, dtype=np.uint32)
        self.ids = np.zeros(0, dtype=np.uint64)
        self.fate = np.zeros(0, dtype=np.int8)

    def add(self, table: pa.Table, content: np.ndarray, ids: np.ndarray) -> None:
        """Put one chunk aside.

        Parameters
        ----------
        table: its column `_row` holds the row numbers. content: (n, 2) uint64. ids: (n,) uint64.
        """
        table = table.append_column("_hash_1", pa.array(content[:, 0])).append_column(
            "_hash_2", pa.array(content[:, 1])
        )
        self.schema = table.schema
        for start in range(0, table.num_rows, _PIECE):
            piece = table.slice(start, _PIECE)
            with (
                pa.OSFile(str(self._path(len(self._lengths))), "wb") as sink,
                pa.ipc.new_file(sink, self.schema) as out,
            ):
                out.write_table(piece)
            self._lengths.append(piece.num_rows)
        if table.num_rows:
            self._rows.append(table["_row"].to_numpy().astype(np.uint32))
            self._ids.append(ids)

    def seal(self) -> None:
        """All chunks are there: the numbers of all rows become available."""
        if self._lengths:
            self.rows = np.concatenate(self._rows)
            self._rows.clear()
            self.ids = np.concatenate(self._ids)
            self._ids.clear()
        self.fate = np.zeros(len(self.rows), dtype=np.int8)

    def __len__(self) -> int:
        return int(sum(self._lengths))

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[tuple[slice, pa.Table]]:
        """(its slice of all rows, the rows) for each file of the staging; only some columns where they are named."""
        start = 0
        for number, length in enumerate(self._lengths):
            options = None
            if columns is not None:
                options = pa.ipc.IpcReadOptions(included_fields=[self.schema.get_field_index(name) for name in columns])
            with pa.OSFile(str(self._path(number))) as source:
                table = pa.ipc.open_file(source, options=options).read_all()
            yield slice(start, start + length), table
            start += length

    def stream(
        self, build: Callable[[slice, pa.Table], pa.Table | None], columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """The rows as a stream, one file of the staging in memory at a time.

        Parameters
        ----------
        build: makes the rows to be written out of a chunk (its slice and its table).
        """
        schema = _built(build(slice(0, 0), self.schema.empty_table().select(list(columns or self.schema.names)))).schema

        def batches() -> Iterator[pa.RecordBatch]:
            for part, table in self.chunks(columns):
                made = build(part, table)
                if made is not None and made.num_rows:
                    # The writer takes some batches ahead; small ones keep that small.
                    yield from made.to_batches(max_chunksize=_BATCH)

        return pa.RecordBatchReader.from_batches(schema, batches())

    @staticmethod
    def content(table: pa.Table) -> np.ndarray:
        """(n, 2) uint64: the content hashes of a chunk."""
        return np.stack([table["_hash_1"].to_numpy(), table["_hash_2"].to_numpy()], axis=1)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.arrow"


def _built(table: pa.Table | None) -> pa.Table:
    if table is None:
        raise ValueError("build must return a table, also for a chunk without rows")
    return table


@contextmanager
def staging(workspace: Workspace) -> Iterator[Staging]:
    """A place for one file's rows; gone at the end. The caller holds the workspace's ingest lock.

    Raises
    ------
    Unavailable: the disk is full.
    """
    root = _root(workspace)
    with translated("staging"):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix="file-") as folder:
            yield Staging(Path(folder))


def clear_staging(workspace: Workspace) -> None:
    """Remove what a killed process left. The caller holds the ingest lock, so nobody's rows can be there."""
    shutil.rmtree(_root(workspace), ignore_errors=True)


def _root(workspace: Workspace) -> Path:
    return workspace.runtime / "staging" / workspace.model
