"""Runs and model versions, kept by MLflow: on SQLite in the workspace, or on the server that the config names.

The only module that knows MLflow. One model of the plant is one experiment and one registered model, both under the
config's name; `champion` and `previous` are aliases of versions.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import BadConfig, Refused, Unavailable
from flows.model_records import RunInfo, VersionInfo, bundle_digest, requirements, run_info, version_info
from flows.settings import Settings
from flows.tracking_errors import told
from flows.workspace import Workspace, new_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from softad.bundle import ModelBundle

CHAMPION, PREVIOUS = "champion", "previous"
MODEL, REFERENCE, BUNDLE = "model", "reference", "bundle"
"""Folders among a run's artifacts: the registered model, the reference beside it, and the bundle within each."""
KEY = "softad.key"

_PATIENCE = {
    # A server that is away is told within seconds, one that hangs within a minute; MLflow's own patience is longer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
_MOST_PARAMS, _MOST_METRICS = 100, 1000


class Tracker:
    """Runs and versions of one model. Nothing is opened before the first use.

    Parameters
    ----------
    settings: names the model, and in `tracking` a server where there is one; else the variable
        MLFLOW_TRACKING_URI counts, and without it SQLite in the workspace.

    All methods raise `flows.errors.Unavailable` where MLflow does not answer.
    """

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self.settings = settings
        self.workspace = workspace
        self.name = settings.name
        self._loaded: dict[str, ModelBundle] = {}

    @property
    def uri(self) -> str:
        """The address of runs and registry."""
        named = self.settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not named and self.settings.services.profile == "production":
            # Not a second registry beside the server's.
            raise Unavailable("MLflow's server does not run; start `softad up`, or name a server in tracking.uri")
        return named or f"sqlite:///{self.workspace.mlflow / 'mlflow.db'}"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client, for what has no method here."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It prints a traceback for each error that it then raises; a person gets one sentence for it.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        from mlflow import MlflowClient

        self.workspace.mlflow.mkdir(parents=True, exist_ok=True)
        with self._reached():
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, made where it is missing."""
        with self._reached():
            found = self.client.get_experiment_by_name(self.name)
            if found is None:
                return self._create_experiment()
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def prepare(self) -> None:
        """Open the database and make the experiment; a new database takes a few seconds, once."""
        _ = self.experiment

    # -- runs -------------------------------------------------------------------------------------------------------

    def start(self, name: str, *, tags: Mapping[str, str], key: str | None = None, parent: str | None = None) -> str:
        """Begin a run and return its id; `key` names it for `find`, `parent` makes it part of another run."""
        marks = dict(tags) | ({KEY: _short(key), "softad.key_text": key[:500]} if key else {})
        if parent:
            marks["mlflow.parentRunId"] = parent
        with self._reached():
            return str(self.client.create_run(self.experiment, tags=marks, run_name=name).info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        series: Mapping[str, Sequence[float]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log parameters, figures and series (one value an epoch, from 1); None and NaN are left out."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        points: list[tuple[str, float | None, int]] = [(name, value, 0) for name, value in (metrics or {}).items()]
        points += [
            (name, value, step) for name, values in (series or {}).items() for step, value in enumerate(values, 1)
        ]
        logged = [
            Metric(name, float(value), now, step)
            for name, value, step in points
            if value is not None and math.isfinite(value)
        ]
        kept = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
        marks = [RunTag(name, value) for name, value in (tags or {}).items()]
        with self._reached():
            first = True
            while first or logged or kept:
                self.client.log_batch(run_id, logged[:_MOST_METRICS], kept[:_MOST_PARAMS], marks if first else [])
                logged, kept, first = logged[_MOST_METRICS:], kept[_MOST_PARAMS:], False

    def log_files(self, run_id: str, folder: Path, path: str | None = None) -> None:
        """Keep all files of a folder among the run's artifacts."""
        with self._reached():
            self.client.log_artifacts(run_id, str(folder), path)

    def log_model(self, run_id: str, bundle: ModelBundle) -> str:
        """Keep a bundle among the run's artifacts as an MLflow model without pickle; returns its digest."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = bundle.save(_made(Path(temporary) / BUNDLE))
            digest = bundle_digest(folder)
            with self._reached():
                from mlflow import pyfunc

                pyfunc.save_model(
                    path=str(Path(temporary) / MODEL),
                    loader_module="softad.bundle",
                    data_path=str(folder),
                    pip_requirements=requirements(),
                )
                self.client.log_artifacts(run_id, str(Path(temporary) / MODEL), MODEL)
        return digest

    def log_reference(self, run_id: str, bundle: ModelBundle) -> str:
        """Keep the model that the registered one is compared with; returns its digest."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = bundle.save(_made(Path(temporary) / BUNDLE))
            self.log_files(run_id, folder, f"{REFERENCE}/{BUNDLE}")
            return bundle_digest(folder)

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run; status FINISHED, FAILED or KILLED."""
        with self._reached():
            self.client.set_terminated(run_id, status)

    def find(self, key: str) -> list[RunInfo]:
        """Runs that were started with this key, newest first."""
        return self._search(f"tags.`{KEY}` = '{_short(key)}'")

    def children(self, run_id: str) -> list[RunInfo]:
        """Runs that are part of another, newest first."""
        return self._search(f"tags.`mlflow.parentRunId` = '{run_id}'")

    def run(self, run_id: str) -> RunInfo:
        """One run of this model.

        Raises
        ------
        BadConfig: there is none of that id.
        """
        found = None
        with self._reached(absent_is=None):
            found = self.client.get_run(run_id)
        if found is None:
            raise BadConfig(f"{self.name} has no run {run_id!r}; its newest are {self._newest()}")
        if found.info.experiment_id != self.experiment:
            with self._reached():
                other = self.client.get_experiment(found.info.experiment_id).name
            raise BadConfig(f"run {run_id} is one of the model {other!r}, not of {self.name!r}; name its --config")
        return run_info(found)

    def runs(self, limit: int = 200) -> list[RunInfo]:
        """The newest runs that are not part of another."""
        return [run for run in self._search("", limit) if run.parent is None]

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """One of a run's artifacts, or a folder of them, as the tracking server has it now; where it was put."""
        with self._reached():
            return Path(self.client.download_artifacts(run_id, path, str(folder)))

    # -- versions ---------------------------------------------------------------------------------------------------

    def register(self, run_id: str, tags: Mapping[str, str]) -> str:
        """Make the model of a run a registered version, once per run; returns the version."""
        for known in self.versions():
            if known.run_id == run_id:
                return known.version
        with self._reached(exists_is_fine=True):
            self.client.create_registered_model(self.name)
        with self._reached():
            made = self.client.create_model_version(
                self.name, source=f"runs:/{run_id}/{MODEL}", run_id=run_id, tags={**tags, "run": run_id}
            )
        return str(made.version)

    def versions(self) -> list[VersionInfo]:
        """All registered versions, oldest first."""
        aliases = self._aliases()
        found: list[Any] = []
        token = None
        with self._reached():
            while True:
                page = self.client.search_model_versions(f"name = '{self.name}'", max_results=1000, page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        return sorted((version_info(one, aliases) for one in found), key=lambda one: int(one.version))

    def version(self, version: str) -> VersionInfo:
        """One registered version.

        Raises
        ------
        BadConfig: there is none of that number.
        """
        found = None
        with self._reached(absent_is=None):
            found = self.client.get_model_version(self.name, version)
        if found is None:
            raise BadConfig(f"{self.name} has no version {version!r}; `softad status` lists the versions")
        return version_info(found, self._aliases())

    def champion(self) -> str | None:
        """The version in use, or None before the first promotion."""
        return self._aliases().get(CHAMPION)

    def previous(self) -> str | None:
        """The version that was in use before, or None."""
        return self._aliases().get(PREVIOUS)

    def set_champion(self, version: str) -> None:
        """Put a version to use."""
        with self._reached():
            self.client.set_registered_model_alias(self.name, CHAMPION, version)

    def set_previous(self, version: str) -> None:
        """Remember the version to go back to."""
        with self._reached():
            self.client.set_registered_model_alias(self.name, PREVIOUS, version)

    def has(self, version: str) -> bool:
        """Whether the registry has this version."""
        return any(known.version == version for known in self.versions())

    def load(self, version: str, *, afresh: bool = False) -> ModelBundle:
        """A registered version, ready to predict; kept in memory and in the workspace's cache.

        Parameters
        ----------
        afresh: what the registry holds now is checked too, also where a good copy is kept here.

        Raises
        ------
        BadConfig: there is no such version.
        Refused: the files are not those that were registered, were it by a single byte.
        """
        if afresh or version not in self._loaded:
            info = self.version(version)
            where = f"{MODEL}/data/{BUNDLE}"
            self._loaded[version] = self._bundle(info.run_id, where, info.digest, f"version {version}", afresh=afresh)
        return self._loaded[version]

    def check(self, version: str, *, reference: bool = False) -> None:
        """See that the registry's files of a version, or of the reference beside it, are those that were registered.

        Raises
        ------
        BadConfig, Refused: as for `load`.
        """
        info = self.version(version)
        if not reference:
            self._files(info.run_id, f"{MODEL}/data/{BUNDLE}", info.digest, f"version {version}", afresh=True)
        elif (digest := info.tags.get("reference_digest")) is not None:
            what = f"the reference of version {version}"
            self._files(info.run_id, f"{REFERENCE}/{BUNDLE}", digest, what, afresh=True)

    def load_reference(self, version: str) -> ModelBundle | None:
        """The model trained without soft ascent-descent on the same rows as a version; None where there is none."""
        name = f"{REFERENCE} {version}"
        if name not in self._loaded:
            info = self.version(version)
            digest = info.tags.get("reference_digest")
            if digest is None:
                return None
            where = f"{REFERENCE}/{BUNDLE}"
            self._loaded[name] = self._bundle(info.run_id, where, digest, f"the reference of version {version}")
        return self._loaded[name]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _create_experiment(self) -> str:
        tracking = self.settings.tracking
        place = None
        # Where production's server stands before the artifacts, it decides where they are.
        if tracking.artifacts and self.settings.services.profile == "embedded":
            place = f"{tracking.artifacts.rstrip('/')}/{self.name}"
        elif self.uri.startswith("sqlite:///"):
            # MLflow's default would be a folder in the directory where the command was given.
            place = (self.workspace.mlflow / "artifacts" / self.name).as_uri()
        with self._reached(exists_is_fine=True):
            return str(self.client.create_experiment(self.name, artifact_location=place))
        found = self.client.get_experiment_by_name(self.name)  # another process was quicker
        return str(found.experiment_id)

    def _search(self, condition: str, limit: int = 200) -> list[RunInfo]:
        with self._reached():
            found = self.client.search_runs(
                [self.experiment], condition, max_results=limit, order_by=["attributes.start_time DESC"]
            )
        return [run_info(run) for run in found]

    def _newest(self) -> str:
        return ", ".join(run.run_id for run in self.runs(50)[:3] if run.status == "FINISHED") or "none yet"

    def _aliases(self) -> dict[str, str]:
        aliases: dict[str, Any] = {}
        with self._reached(absent_is=None):
            aliases = self.client.get_registered_model(self.name).aliases
        return {name: str(version) for name, version in aliases.items()}

    def _bundle(self, run_id: str, path: str, digest: str, what: str, *, afresh: bool = False) -> ModelBundle:
        from softad.bundle import ModelBundle

        return ModelBundle.load(self._files(run_id, path, digest, what, afresh=afresh))

    def _files(self, run_id: str, path: str, digest: str, what: str, *, afresh: bool) -> Path:
        """A bundle's files, checked, in the cache."""
        target = self.workspace.cache / "models" / digest
        if target.exists() and bundle_digest(target) != digest:
            shutil.rmtree(target)  # a copy; what counts is the registry
        if afresh or not target.exists():
            with new_folder(target.parent) as fresh:
                got = self.fetch(run_id, path, fresh)
                if bundle_digest(got) != digest:
                    raise Refused(
                        f"{what} of {self.name}: its files are not those that were registered, so it is not loaded; "
                        "restore MLflow's artifacts from a backup, or go back with `softad rollback`"
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    got.replace(target)
        return target

    @contextmanager
    def _reached(self, *, exists_is_fine: bool = False, **absent: None) -> Iterator[None]:
        """Turn what MLflow raises into one sentence; `absent_is=None` passes over what does not exist."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            code = getattr(error, "error_code", "")
            if (absent and code in _ABSENT) or (exists_is_fine and code == "RESOURCE_ALREADY_EXISTS"):
                return
            raise told(error, self.uri) from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]
