"""A model version as an ONNX file for small machines at the line, written only where it answers as the model does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import BadConfig, BadInput, Refused, Unavailable
from flows.images import images_of
from flows.store import current_rows
from flows.targets import writable_file
from flows.workspace import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from flows.context import Context
    from flows.store import Store
    from softad.bundle import ModelBundle

TOLERANCE = 1e-5
"""Largest difference of a probability, or of a value as a share of the targets' deviation."""
CHECKED_ROWS = 2000
"""So many of the newest rows are answered by both before a file is written."""


@dataclass(frozen=True)
class Agreement:
    """Whether the exported model answers as the trained one does.

    Attributes
    ----------
    rows: on how many rows both were asked.
    difference: the largest one found; None where nothing could be exported.
    seconds_one_row: median time that onnxruntime takes for a single row.
    content: the ONNX file; None where nothing could be exported.
    reason: in words.
    """

    rows: int
    difference: float | None
    tolerance: float
    seconds_one_row: float | None
    reason: str
    content: bytes | None = field(default=None, repr=False)

    @property
    def agrees(self) -> bool:
        """Whether every answer is the same within the tolerance."""
        return self.difference is not None and self.difference <= self.tolerance


@dataclass(frozen=True)
class Export:
    """A file that was written, and the contract beside it."""

    version: str
    file: Path
    contract: Path
    size: int
    agreement: Agreement

    def document(self) -> dict[str, Any]:
        """For programs."""
        said = self.agreement
        return {
            "version": self.version, "file": self.file, "contract": self.contract, "bytes": self.size,
            "rows_checked": said.rows, "difference": said.difference, "tolerance": said.tolerance,
            "milliseconds_one_row": None if said.seconds_one_row is None else 1000 * said.seconds_one_row,
        }  # fmt: skip


def export_agrees(
    bundle: ModelBundle,
    frame: pd.DataFrame,
    images: Callable[[str], bytes] | None = None,
    *,
    about: dict[str, str] | None = None,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Export a model in memory, and compare its answers with the model's own on real rows.

    Parameters
    ----------
    frame: rows with the training's columns, for example held-out ones; with none there is no agreement.
    images: the reader of their images.
    about: what else the file should say of itself.

    >>> import pandas as pd
    >>> from softad.bundle import train_bundle
    >>> frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    >>> bundle, _ = train_bundle(frame, ["ok", "ok", "bad", "bad"], frame, ["ok", "ok", "bad", "bad"],
    ...     task="classification", classes=["ok", "bad"], numeric=["x"], categorical=[], model="linear", epochs=2)
    >>> found = export_agrees(bundle, frame)
    >>> found.agrees, found.rows
    (True, 4)

    Raises
    ------
    Unavailable: onnx, onnxruntime or onnxscript is not installed.
    BadInput: the rows are none that the model can be asked about.
    """
    from softad.export import NotExportable, OnnxModel, largest_difference, raw_inputs, to_onnx

    if len(frame) == 0:
        return Agreement(0, None, tolerance, None, "there is no row to compare the exported model on")
    try:
        content = to_onnx(bundle, about)
        exported = OnnxModel(content, threads=1)
    except NotExportable as error:
        return Agreement(0, None, tolerance, None, str(error))
    except ImportError as error:
        raise Unavailable(
            f"an export needs onnx, onnxruntime and onnxscript ({error}): pip install 'softad[export]'"
        ) from error
    try:
        apart = largest_difference(bundle, exported, frame, images)
        one = raw_inputs(bundle, frame.head(1), images)
    except ValueError as error:
        raise BadInput(f"the rows do not fit the model: {error}") from error
    reason = f"on {len(frame)} rows the exported model differs by at most {apart:.2g}; allowed: {tolerance:.0e}"
    return Agreement(len(frame), apart, tolerance, _seconds(lambda: exported.run(one)), reason, content)


def export_version(context: Context, version: str | None = None, to: Path | None = None) -> Export:
    """Write a version, by default the champion, as an ONNX file, and its input contract as JSON beside it.

    Parameters
    ----------
    to: the file, or a folder for it; by default in the outbox, under `models`.

    Raises
    ------
    BadConfig: there is no champion yet, no such version, or `to` can be no file.
    BadInput: no rows have come yet that both could be asked about.
    Refused: the answers differ, torch cannot express the network, or the model's files are not those registered.
    """
    settings, tracker = context.settings, context.tracker
    if to is not None and not to.is_dir():
        writable_file(to, "with --to")
    version = version or tracker.champion()
    if version is None:
        raise BadConfig(f"{settings.name} has no champion yet; name the version: softad export VERSION")
    info, bundle = tracker.version(version), tracker.load(version)
    frame = newest_rows(context.store)
    if frame.empty:
        raise BadInput("no rows have come yet, and an export is checked on real rows; ingest a file first")
    about = {"model": settings.name, "version": version, "run": info.run_id}
    found = export_agrees(bundle, frame, images_of(settings, context.workspace), about=about)
    if not found.agrees or found.content is None:
        raise Refused(f"version {version} is not exported, and nothing was written: {found.reason}")
    file = to or context.workspace.outbox / "models"
    if to is None or to.is_dir():
        file = file / f"{settings.name}-{version}.onnx"
    contract = file.with_name(f"{file.name}.json")
    from softad.export import description

    write_atomically(contract, json.dumps({**about, **description(bundle)}, indent=1, ensure_ascii=False) + "\n")
    write_atomically(file, found.content)
    return Export(version, file, contract, len(found.content), found)


def newest_rows(store: Store, rows: int = CHECKED_ROWS) -> pd.DataFrame:
    """The rows that came last, at most so many, in order of arrival."""
    newest = store.sql("SELECT max(_seq) AS top FROM inspections")["top"].iloc[0]
    first = 0 if newest is None or newest != newest else int(newest) - rows + 1  # noqa: PLR0124 (not a number)
    return current_rows(store, where=f"_seq >= {first}").tail(rows)


def lines_of(found: Export) -> list[str]:
    """In sentences."""
    said = found.agreement
    quick = "" if said.seconds_one_row is None else f"; one row takes {1000 * said.seconds_one_row:.2f} ms"
    return [
        f"version {found.version} is written as {found.file} ({found.size / 1000:.0f} kB)",
        f"{said.reason}{quick}",
        f"what it takes and gives: {found.contract}",
    ]


def _seconds(call: Callable[[], Any]) -> float:
    call()
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[10]
