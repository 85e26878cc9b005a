"""Passwords and keys: from the environment, from a file that it names, or from a folder of files; never from a config.

A secret has a plain name, such as ``prefect_auth``. It is looked for, in this order, in the variable
``SOFTAD_PREFECT_AUTH``, in the file that ``SOFTAD_PREFECT_AUTH_FILE`` names, and in the file ``prefect_auth`` of the
secrets' folder (`services.secrets` of the config, or the variable ``SOFTAD_SECRETS``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from flows.errors import BadConfig
from flows.sections import Services
from flows.settings import Settings
from flows.workspace import write_atomically

FOLDER = "SOFTAD_SECRETS"

SERVICE_USER = "softad"
"""As whom the worker acts towards MLflow and Prefect."""

PEOPLE = ("viewer", "operator", "approver")
"""The users that the first start makes, beside MLflow's administrator."""

GENERATED = (
    "postgres_password", "postgres_mlflow_password", "postgres_prefect_password", "mlflow_secret_key",
    "mlflow_admin_password", "mlflow_softad_password", "prefect_auth", *(f"{name}_password" for name in PEOPLE),
)  # fmt: skip
"""What the first start of the production profile makes where it is missing."""

OBJECT_STORE = ("aws_access_key_id", "aws_secret_access_key")


class Secrets:
    """The secrets of one installation; a value is read when it is asked for, and kept nowhere.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine = Secrets(Path(folder) / "secrets", environment={"SOFTAD_AWS_ACCESS_KEY_ID": "from-outside"})
    ...     mine.create(["prefect_auth"])
    ...     mine.get("aws_access_key_id"), mine.need("prefect_auth").startswith("softad:"), mine.get("unknown")
    ('from-outside', True, None)
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = os.environ if environment is None else environment

    @classmethod
    def of(cls, settings: Settings | None, root: Path) -> Secrets:
        """Those of a workspace with this config; None: where they are unless a config says otherwise."""
        named = os.environ.get(FOLDER)
        return cls(Path(named) if named else root / (settings.services if settings else Services()).secrets)

    def __repr__(self) -> str:
        """The folder alone."""
        return f"Secrets({str(self.folder)!r})"

    def get(self, name: str) -> str | None:
        """The secret, or None.

        Raises
        ------
        BadConfig: the environment names a file that cannot be read.
        """
        variable = f"SOFTAD_{name.upper()}"
        if value := self._environment.get(variable):
            return value
        if named := self._environment.get(f"{variable}_FILE"):
            found = _content(Path(named))
            if found is None:
                raise BadConfig(f"{variable}_FILE names {named}, which is no file that can be read; mend one of both")
            return found
        return _content(self.folder / name)

    def need(self, name: str) -> str:
        """The secret.

        Raises
        ------
        BadConfig: it is nowhere, or is empty.
        """
        value = self.get(name)
        if not value:
            raise BadConfig(
                f"the secret {name} is missing; write it into the file {self.folder / name}, or name a file of yours "
                f"with SOFTAD_{name.upper()}_FILE"
            )
        return value

    def create(self, names: tuple[str, ...] | list[str] = GENERATED) -> None:
        """Make the secrets that are nowhere yet, each in a file that only this user can read."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in names:
            if not self.get(name):
                value = secrets.token_urlsafe(24)
                text = f"{SERVICE_USER}:{value}" if name == "prefect_auth" else value
                write_atomically(self.folder / name, text + "\n", mode=0o600)


def service_variables(kept: Secrets) -> dict[str, str]:
    """With what the worker, and a command given by someone who may read the folder, acts as the service itself.

    >>> service_variables(Secrets(Path("/nonexistent"), environment={"SOFTAD_PREFECT_AUTH": "softad:x"}))
    {'PREFECT_API_AUTH_STRING': 'softad:x'}
    """
    found = {"PREFECT_API_AUTH_STRING": kept.get("prefect_auth")}
    if password := kept.get("mlflow_softad_password"):
        found |= {"MLFLOW_TRACKING_USERNAME": SERVICE_USER, "MLFLOW_TRACKING_PASSWORD": password}
    return {name: value for name, value in found.items() if value}


def apply(settings: Settings, root: Path, variables: MutableMapping[str, str] | None = None) -> None:
    """Let this process act as the service where the config says production, and where nothing else is set.

    A person's own MLFLOW_TRACKING_USERNAME counts before it: then nothing of the service's account is used.
    """
    variables = os.environ if variables is None else variables
    if settings.services.profile != "production":
        return
    from flows.up import running

    found: dict[str, str] = {}
    if where := running(root):
        found = {"PREFECT_API_URL": where.prefect_api, "MLFLOW_TRACKING_URI": where.mlflow}
    # Somebody who is not the service is asked for a login of their own.
    with contextlib.suppress(PermissionError):
        login = service_variables(Secrets.of(settings, root))
        if "MLFLOW_TRACKING_USERNAME" in variables:
            login = {name: value for name, value in login.items() if not name.startswith("MLFLOW_")}
        found |= login
    for name, value in found.items():
        variables.setdefault(name, value)


def ask_the_running(settings: Settings, root: Path, variables: MutableMapping[str, str] | None = None) -> None:
    """Let this process ask the MLflow server of the `softad up` that runs in the workspace, where no other is named.

    A server that is warm answers sooner than its database opens in a process of its own.

    >>> named: dict[str, str] = {}
    >>> data = {"label": "ok", "numeric": ["x"], "window": {"rows": 500}}
    >>> ask_the_running(Settings.model_validate({"name": "line", "data": data}), Path("/nowhere"), named)
    >>> named
    {}
    """
    from flows.up import running

    if settings.tracking.uri is None and (where := running(root)):
        (os.environ if variables is None else variables).setdefault("MLFLOW_TRACKING_URI", where.mlflow)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
