"""Where the page links to: servers that are up, never a file, never with a password."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.context import Context
from flows.page import links
from flows.settings import Settings
from flows.workspace import Workspace


@dataclass
class Known:
    uri: str


@dataclass
class Somewhere:
    """As much of a `Context` as links need, without opening a registry."""

    settings: Settings
    workspace: Workspace
    tracker: Known = field(default_factory=lambda: Known("sqlite:///mlflow.db"))


def context(folder: Path, uri: str, prefect: str | None = None) -> Context:
    settings = Settings.model_validate({
        "name": "a", "data": {"label": "ok", "numeric": ["x"], "window": {"rows": 50}},
        "services": {"prefect": prefect},
    })  # fmt: skip
    return Somewhere(settings, Workspace.open(folder, "a"), Known(uri))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("uri", "prefect", "found"),
    [
        ("sqlite:////plant/mlflow.db", None, {}),
        ("javascript:alert(1)", None, {}),
        ("https://someone:secret@mlflow.plant", None, {"mlflow": "https://mlflow.plant"}),
        ("sqlite:////plant/mlflow.db", "http://prefect.plant/api", {"prefect": "http://prefect.plant"}),
    ],
)
def test_servers_are_linked_and_files_are_not(
    tmp_path: Path, uri: str, prefect: str | None, found: dict[str, str]
) -> None:
    assert links(context(tmp_path, uri, prefect)) == found


def test_what_an_ended_system_left_behind_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "up.json").write_text('{"state": "ready", "supervisor": null, "addresses": {}}')
    assert links(context(tmp_path, "sqlite:///mlflow.db")) == {}
