"""Tables in an object store: where they are, and what Delta Lake has to know to read and write them there.

Commits are conditional puts (a file of the log is only written where none is), so two writers never take the same
version; the store must know `If-None-Match`, as Amazon's and most others do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.credentials import OBJECT_STORE, Secrets
from flows.settings import Settings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from flows.store import Store

_PATIENCE = {"connect_timeout": "5s", "timeout": "60s", "max_retries": "3", "retry_timeout": "30s"}
"""A store that is away is told within a minute; the library's own patience is three times that."""


def open_tables(settings: Settings, workspace: Workspace) -> Store:
    """The tables of one model, in the object store or in the workspace."""
    from flows.store import Store

    if settings.storage.tables is None:
        return Store(workspace.tables)
    address = f"{settings.storage.tables.rstrip('/')}/{settings.name}"
    return Store(address, storage_options(settings, Secrets.of(settings, workspace.root)))


def storage_options(settings: Settings, kept: Secrets) -> dict[str, str]:
    """As Delta Lake names them; without keys where none are kept, as on a machine that Amazon gives a role.

    >>> from pathlib import Path
    >>> from flows.settings import Settings
    >>> plant = Settings.model_validate({"name": "line-a", "data": {"label": "ok", "numeric": ["x"],
    ...     "window": {"rows": 500}}, "storage": {"tables": "s3://plant/a", "endpoint": "http://objects:9000"}})
    >>> found = storage_options(plant, Secrets(Path("/none"), {"SOFTAD_AWS_ACCESS_KEY_ID": "me"}))
    >>> found["AWS_ENDPOINT_URL"], found["AWS_ALLOW_HTTP"], found["AWS_ACCESS_KEY_ID"]
    ('http://objects:9000', 'true', 'me')
    """
    options = {"AWS_REGION": settings.storage.region, "aws_conditional_put": "etag", **_PATIENCE}
    if settings.storage.endpoint is not None:
        options["AWS_ENDPOINT_URL"] = settings.storage.endpoint
        options["AWS_ALLOW_HTTP"] = "true" if settings.storage.endpoint.startswith("http://") else "false"
    keys = {name.upper(): kept.get(name) for name in OBJECT_STORE}
    return options | {name: value for name, value in keys.items() if value}
