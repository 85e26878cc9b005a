"""Parts of the configuration that say where data and services are: profile, addresses, ports, object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the configuration; refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def without_password(address: str) -> str:
    """The address as it is, if it holds no password: a config is copied, mailed and logged.

    >>> without_password("http://mlflow.plant:5000")
    'http://mlflow.plant:5000'
    """
    if re.search(r"://[^/?#]*:[^/?#]*@", address):
        raise ValueError(
            "an address holds no password; leave it out here, and put it into a file of the secrets' folder, or name "
            "one with SOFTAD_…_FILE (docs/production.md lists them)"
        )
    return address


Address = Annotated[str, AfterValidator(without_password)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Tracking(Section):
    """Where runs and models are kept; empty: SQLite and a folder in the workspace."""

    uri: Address | None = None
    artifacts: Address | None = None


class ServicePorts(Section):
    """Loopback ports of what `softad up` starts; empty: any that is free, the same as last time where possible."""

    page: Port | None = None
    prefect: Port | None = None
    mlflow: Port | None = None
    postgres: Port | None = None


class Services(Section):
    """How the services are run, and which of them run elsewhere."""

    profile: Literal["embedded", "production"] = "embedded"
    secrets: Path = Field(default=Path("secrets"), description="folder, relative to the workspace")
    postgres: Address | None = Field(default=None, description="postgresql://HOST:PORT of a server elsewhere")
    prefect: Address | None = Field(default=None, description="address of a Prefect server's API elsewhere")
    ports: ServicePorts = ServicePorts()

    @model_validator(mode="after")
    def _addresses_fit(self) -> Services:
        if self.postgres is not None and not re.fullmatch(r"postgres(ql)?://[^/@\s]+/?", self.postgres):
            raise ValueError("postgres: write postgresql://HOST:PORT, without a user and without a database")
        if self.prefect is not None and not re.fullmatch(r"https?://\S+/api/?", self.prefect):
            raise ValueError("prefect: write the address of the API, which ends in /api")
        named = [port for port in self.ports.model_dump().values() if port is not None]
        if len(set(named)) < len(named):
            raise ValueError("ports: a port is named twice; each service needs one of its own")
        return self


class Storage(Section):
    """Where the tables are kept; empty: in folders of the workspace."""

    tables: Address | None = Field(default=None, description="s3://BUCKET/FOLDER")
    endpoint: Address | None = Field(default=None, description="address of the object store, if it is not Amazon's")
    region: str = "us-east-1"

    @model_validator(mode="after")
    def _addresses_fit(self) -> Storage:
        if self.tables is not None and not re.fullmatch(r"s3://[^/\s]+(/\S*)?", self.tables):
            raise ValueError("tables: write s3://BUCKET/FOLDER, or leave it out to keep them in the workspace")
        if self.endpoint is not None and not re.fullmatch(r"https?://\S+", self.endpoint):
            raise ValueError("endpoint: write the address of the object store, such as https://objects.plant:9000")
        return self


Days = Annotated[int, Field(ge=1)]


class Retention(Section):
    """How many days files are kept after they were written; empty: for ever. The rows themselves are never removed."""

    predictions_days: Days | None = None
    html_reports_days: Days | None = 400
    logs_days: Days | None = 90
    table_versions_days: Days = 7
