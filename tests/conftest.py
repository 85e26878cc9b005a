"""A small plant without a simulated line: files written by hand, and all tables summed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings as property_settings

from flows.agreement import compare
from flows.errors import Damaged
from flows.ingest import IngestReport, ingest_file, ingest_inbox
from flows.settings import Settings, load_settings
from flows.store import Store
from flows.workspace import Workspace

# A change is judged by the same examples wherever its tests run; `make search` looks for new ones.
# No deadline: what a property finds must not hang on how busy the machine is.
property_settings.register_profile("fixed", deadline=None, derandomize=True)
property_settings.register_profile("search", deadline=None, print_blob=True)
property_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SUMMED = ("files", "inspections", "quarantine", "labels")


@dataclass
class Site:
    """A workspace with its config, and what tests ask of it."""

    settings: Settings
    workspace: Workspace
    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.workspace.tables)

    def file(self, name: str, content: str | bytes) -> Path:
        """A file outside the inbox."""
        return _written(self.folder / name, content)

    def drop(self, name: str, content: str | bytes) -> Path:
        """A file in the inbox."""
        return _written(self.workspace.inbox / name, content)

    def ingest(self, path: Path, *, now: datetime = NOW) -> IngestReport:
        return ingest_file(path, self.settings, self.store, self.workspace, now=now)

    def inbox(self, *, now: datetime = NOW) -> list[IngestReport]:
        return ingest_inbox(self.settings, self.store, self.workspace, now=now)

    def sums(self) -> dict[str, int]:
        """Rows of every table that ingest writes, refusals not counted."""
        counts = {table: self.store.count(table) for table in SUMMED}
        counts["files"] = self.store.count("files", "status = 'accepted'")
        return counts

    def content(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of those tables, in an order of their own."""
        frames = {table: self.store.read(table) for table in SUMMED}
        # Two empty cells are equal, which NaN is not.
        plain = {table: frame.astype(object).where(frame.notna(), None) for table, frame in frames.items()}
        return {table: sorted(frame.to_dict("records"), key=str) for table, frame in plain.items()}

    def lying(self) -> dict[str, str]:
        """What lies in the inbox: path -> hash."""
        files = [path for path in self.workspace.inbox.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a site: `new_site(data={...}, task={...}, ingest={...}, rules=[...])` changes single values."""

    made: list[Site] = []

    def make(*, name: str = "plant", rules: list[dict[str, Any]] | None = None, **sections: dict[str, Any]) -> Site:
        folder = tmp_path / name
        folder.mkdir()
        data = {
            "id": "part", "time": "time", "label": "ok", "numeric": ["x1", "x2"], "categorical": ["machine"],
            "slices": ["machine"], "time_zone": "Asia/Tokyo",
        }  # fmt: skip
        document: dict[str, Any] = {
            "name": name,
            "data": data | sections.get("data", {}),
            "task": {"classes": ["0", "1"]} | sections.get("task", {}),
            "ingest": {"settle_seconds": 0, "chunk_rows": 100, "max_bad_share": 0.5} | sections.get("ingest", {}),
        }
        if rules is not None:
            (folder / "rules.yaml").write_text(yaml.safe_dump({"expectations": rules}))
            document["ingest"]["expectations"] = "rules.yaml"
        document["data"] = {key: value for key, value in document["data"].items() if value is not None}
        (folder / "config.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))
        settings = load_settings(folder / "config.yaml")
        made.append(Site(settings, Workspace.open(folder / "workspace", settings=settings), folder))
        return made[-1]

    yield make
    # Whatever a test did: each file's rows are where its record says, unless it damaged a table.
    for one in made:
        with contextlib.suppress(Damaged):
            assert compare(one.store).faults == ()


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    """A site with the id `part`, the time `time`, the numbers `x1`, `x2`, the category `machine`, the label `ok`."""
    return new_site()
