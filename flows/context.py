"""What every stage needs: the configuration, the workspace, the tables and the model registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import BadConfig
from flows.settings import Settings, load_settings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from flows.store import Store
    from flows.tracking import Tracker


@dataclass(frozen=True)
class Context:
    """One model in one workspace; tables and registry are opened at first use."""

    settings: Settings
    workspace: Workspace

    @cached_property
    def store(self) -> Store:
        """The model's tables."""
        from flows.object_store import open_tables

        return open_tables(self.settings, self.workspace)

    @cached_property
    def tracker(self) -> Tracker:
        """The model's runs and versions."""
        from flows.tracking import Tracker

        return Tracker(self.settings, self.workspace)


def open_context(config: Path | None, workspace: Path) -> Context:
    """Read the config (by default `config.yaml` in the workspace) and open the workspace.

    Raises
    ------
    BadConfig: no config, a config that does not fit, or a workspace of a newer version.
    """
    if config is None:
        config = workspace / "config.yaml"
        if not config.exists():
            raise BadConfig(
                f"{config}: there is no config yet; write one with `softad init DATA`, or name one with --config FILE"
            )
    from flows.credentials import apply

    settings = load_settings(config)
    apply(settings, workspace.absolute())
    place = Workspace.open(workspace, settings=settings)
    # Opening the registry takes a second: a process that runs many cycles keeps it, unless the config was changed.
    key = (place.root, settings.source, settings.digest())
    if key not in _OPEN:
        _OPEN.clear()
        _OPEN[key] = Context(settings, place)
    return _OPEN[key]


_OPEN: dict[tuple[Path, Path | None, str], Context] = {}


def utc_now() -> datetime:
    """The present, in UTC; only command lines and flows read the clock.

    >>> utc_now().tzinfo is UTC
    True
    """
    return datetime.now(UTC)
