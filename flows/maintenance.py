"""What may go with time: old prediction files, HTML reports, logs, files of tables that nothing needs any more.

Rows are never removed: what a deleted file held is in the tables, and a version of a table that a model's lineage names
stays readable. `softad maintain`, and the nightly run, call `maintain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flows.context import Context

LEFT_OVER = timedelta(days=1)
"""A half-written file this old belongs to a process that died."""


@dataclass(frozen=True)
class Tidied:
    """Files removed, by kind.

    >>> Tidied(predictions=2, reports=0, logs=1, left_over=0, table_files=5).total
    8
    """

    predictions: int
    reports: int
    logs: int
    left_over: int
    table_files: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.predictions + self.reports + self.logs + self.left_over + self.table_files


def maintain(context: Context, *, now: datetime) -> Tidied:
    """Remove what the config's `retention` lets go; join small files of tables.

    It waits for a cycle of this model that is running.
    """
    kept, place = context.settings.retention, context.workspace
    from flows.retrain import kept_versions

    with place.lock("cycle"):
        removed = context.store.compact(
            kept_versions(context.tracker), retention_hours=24 * kept.table_versions_days, min_files=2
        )
        return Tidied(
            predictions=_remove(_older(place.outbox / "predictions", "*", kept.predictions_days, now)),
            reports=_remove(_older(place.reports, "*.html", kept.html_reports_days, now)),
            logs=_remove(_older(place.logs, "*", kept.logs_days, now)),
            left_over=_remove(_left_over(place.root, now)),
            table_files=sum(removed.values()),
        )


def _older(folder: Path, pattern: str, days: int | None, now: datetime) -> Iterator[Path]:
    """Files that were not written for so many days; none where None says to keep all."""
    if days is None:
        return
    before = (now - timedelta(days=days)).timestamp()
    for path in folder.glob(pattern):
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime < before:
            yield path


def _left_over(root: Path, now: datetime) -> Iterator[Path]:
    before = (now - LEFT_OVER).timestamp()
    for folder in ("outbox", "page", "reports", "run"):
        for path in (root / folder).rglob(".*.part"):
            if path.is_file() and path.stat().st_mtime < before:
                yield path


def _remove(paths: Iterator[Path]) -> int:
    found = list(paths)
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
