"""The configuration of one model: what its columns mean, how it is trained, watched and promoted.

Read from one YAML file; any value can be overridden from the environment, with ``SOFTAD_CONFIG__`` before it
and two underscores between levels (``SOFTAD_CONFIG__MONITORING__ALARM_BUDGET=0.1``). An unknown key is an error.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flows.errors import BadConfig
from flows.sections import Retention, Section, Services, Storage, Tracking
from flows.sections_watch import Alerts, Monitoring, Positive
from flows.strict_yaml import parsed

Share = Annotated[float, Field(ge=0.0, le=1.0)]

LOT_DAY = "_day"
"""Stands for the day of inspection among the columns that name a lot."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
NAME_SAID = "letters A to Z, digits, - and _, the first a letter or a digit, at most 64"
"""What a model may be called: it names folders, and the model in the registry."""

_MAY_HOLD_SECRETS = ("alerts", "tracking", "storage", "services")
"""Sections whose values no sentence shows."""


class Window(Section):
    """A window is a calendar period in the plant's time zone, or a number of rows in order of arrival."""

    period: Literal["day", "week", "month"] | None = None
    rows: Annotated[int, Field(ge=20)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Window:
        if (self.period is None) == (self.rows is None):
            raise ValueError("name either period (day, week or month) or rows, and not both")
        return self


class Data(Section):
    """What the columns of the inspection files are. Columns not named here are kept, and not used."""

    id: str | None = None
    time: str | None = None
    label: str
    label_columns: list[str] = Field(default_factory=list, description="one-hot columns that become `label`")
    numeric: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    image: str | None = Field(default=None, description="the column that holds the image's path")
    images: Path | None = Field(default=None, description="zip or folder, relative to the config file")
    image_size: Annotated[int, Field(ge=8, le=512)] = 32
    slices: list[str] = Field(default_factory=list)
    group: str | None = Field(default=None, description="rows that share it never part at a split")
    lot: list[str] = Field(default_factory=list, description="columns that together name a lot; _day: of inspection")
    time_zone: str = "UTC"
    date_order: Literal["ymd", "dmy", "mdy"] = Field(default="ymd", description="of dates such as 03/04/2026")
    window: Window = Window(period="week")
    left_out: dict[str, str] = Field(default_factory=dict, description="column: why it is no feature")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception as error:
            raise ValueError(f"{value!r} is no time zone; write one such as Asia/Tokyo or UTC") from error
        return value

    @model_validator(mode="after")
    def _roles_do_not_clash(self) -> Data:
        features = [*self.numeric, *self.categorical, *([self.image] if self.image else [])]
        if not features:
            raise ValueError("name at least one feature: numeric, categorical or image")
        twice = sorted({name for name in features if features.count(name) > 1})
        if twice:
            raise ValueError(f"a column has one role only: {', '.join(twice)} is named twice as a feature")
        if self.label in features or set(self.label_columns) & set(features):
            raise ValueError(f"the label {self.label!r} cannot be a feature too")
        if LOT_DAY in self.lot and (self.time is None or len(self.lot) < 2):
            raise ValueError(f"lot: {LOT_DAY} needs the column `time`, and a column beside it; such as [machine, _day]")
        if self.window.period is not None and self.time is None:
            raise ValueError("a window by calendar needs the column `time`; use window: {rows: N} without one")
        return self

    @property
    def lot_columns(self) -> list[str]:
        """Columns of the files that name a lot."""
        return [name for name in self.lot if name != LOT_DAY]

    @property
    def features(self) -> list[str]:
        """Columns that the model sees, images last."""
        return [*self.numeric, *self.categorical, *([self.image] if self.image else [])]


class Task(Section):
    """Classification (a label out of `classes`) or regression (a numeric label)."""

    kind: Literal["classification", "regression"] = "classification"
    classes: list[str] = Field(default_factory=list, description="as text; a class not listed is quarantined")
    normal: str | None = Field(default=None, description="the class of good parts; all others are defects")
    tolerance: Positive | None = Field(default=None, description="regression: an error above it is a miss")
    false_reject_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01

    @model_validator(mode="after")
    def _classes_fit(self) -> Task:
        if self.kind == "classification":
            if len(self.classes) < 2:
                raise ValueError("classification needs at least two classes")
            if len(set(self.classes)) != len(self.classes):
                raise ValueError("a class is listed twice")
            if self.normal is not None and self.normal not in self.classes:
                raise ValueError(f"normal: {self.normal!r} is not among the classes")
        return self


class Ingest(Section):
    """How files are taken in."""

    inbox: Path = Path("inbox")
    outbox: Path = Path("outbox")
    expectations: Path | None = Field(default=None, description="YAML suite, relative to the config file")
    max_bad_share: Share = 0.2
    settle_seconds: Annotated[float, Field(ge=0.0)] = 2.0
    chunk_rows: Annotated[int, Field(ge=100)] = 150_000


class Split(Section):
    """How labelled rows are parted: by row within each class, by group, or by time."""

    by: Literal["stratified", "group", "time"] = "stratified"
    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2
    holdout: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.25


class Training(Section):
    """How a challenger is trained."""

    model: str = Field(default="mlp", description="linear, mlp, cnn, or package.module:factory")
    hidden: list[int] = Field(default_factory=lambda: [64, 64])
    embedding: Literal["none", "auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="none", description="width of a learnt vector for each category; none: a feature of 0 and 1 each"
    )
    epochs: Annotated[int, Field(ge=1)] = 60
    patience: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 256
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    thetas: list[Positive | Literal["auto"]] = Field(default=["auto", 0.05, 0.2], description="none: plain training")
    objectives: list[str] = Field(default_factory=list, description="others to try, as a pilot study names them")
    sigma: Positive | Literal["auto"] = "auto"
    history: Annotated[int, Field(ge=1)] = 26
    min_rows: Annotated[int, Field(ge=20)] = 200
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 2
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    device: str = "cpu"
    split: Split = Split()

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: list[str]) -> list[str]:
        if value:
            from softad.pilot_criteria import criterion_named

            for name in value:
                criterion_named(name)
        return value

    @model_validator(mode="after")
    def _embedding_fits(self) -> Training:
        if self.embedding != "none" and self.model not in ("linear", "mlp"):
            raise ValueError(f"embedding is {self.embedding}, which linear and mlp take, but model is {self.model}")
        return self


class Promotion(Section):
    """Who lets a challenger replace the champion, and the margins within which it must not be worse."""

    mode: Literal["auto", "advise", "approve"] = "auto"
    approve_hours: Positive = 72.0
    shadow_windows: Annotated[int, Field(ge=0)] = 0
    probation_windows: Annotated[int, Field(ge=0)] = 2
    fresh_rows: Annotated[int, Field(ge=100)] = 2_000
    mean_margin: Positive = 0.02
    tail_margin: Positive = 0.05
    stability_margin: Positive = 0.05
    recall_margin: Positive = 0.01
    slice_margin: Positive = 0.10
    min_slice_rows: Annotated[int, Field(ge=20)] = 200
    min_holdout_rows: Annotated[int, Field(ge=20)] = 100
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    resamples: Annotated[int, Field(ge=200)] = 2_000
    row_ms: Positive | None = 50.0
    size_mb: Positive | None = 200.0
    export_tolerance: Positive | None = 1e-5
    export_required: bool = Field(default=False, description="whether a model that cannot be exported is refused")
    protected: list[str] = Field(default_factory=list, description="slice columns; empty: all of data.slices")


class Schedule(Section):
    """When the deployments run, as cron lines in the plant's time zone."""

    cycle: str = "*/15 * * * *"
    retrain: str | None = "0 3 1 * *"
    maintain: str | None = "30 2 * * *"
    report: str | None = "0 7 * * 1"


class Settings(BaseSettings):
    """One model's whole configuration.

    >>> settings = Settings.model_validate({"name": "line-a", "data": {"label": "ok", "numeric": ["x"],
    ...     "window": {"rows": 500}}, "task": {"classes": ["0", "1"]}})
    >>> settings.monitoring.alarm_budget, settings.data.features
    (0.05, ['x'])
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="SOFTAD_CONFIG__", env_nested_delimiter="__"
    )

    name: Annotated[str, Field(pattern=NAME)]
    data: Data
    task: Task = Task(kind="classification", classes=["0", "1"])
    ingest: Ingest = Ingest()
    training: Training = Training()
    monitoring: Monitoring = Monitoring()
    promotion: Promotion = Promotion()
    alerts: Alerts = Alerts()
    tracking: Tracking = Tracking()
    storage: Storage = Storage()
    services: Services = Services()
    retention: Retention = Retention()
    schedule: Schedule = Schedule()
    source: Path | None = Field(default=None, exclude=True, description="the file that it was read from")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats the file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _parts_fit(self) -> Settings:
        if self.training.split.by == "group" and self.data.group is None:
            raise ValueError("training.split.by: group needs data.group, the column to split by")
        if self.training.split.by == "time" and self.data.time is None:
            raise ValueError("training.split.by: time needs data.time, the column to split by")
        if self.data.lot and self.training.split.by == "stratified":
            raise ValueError(
                "data.lot: rows of one lot are alike, so none may both train and judge; set training.split.by to group "
                "(with data.group, such as the lot) or to time"
            )
        if self.training.embedding != "none" and self.data.image is not None:
            raise ValueError("training.embedding: only tables have it, and data.image names images; set it to none")
        return self

    def beside_config(self, path: Path) -> Path:
        """`path`, taken relative to the folder of the config file."""
        return path if path.is_absolute() or self.source is None else self.source.parent / path

    def digest(self) -> str:
        """Sixteen hex digits that change with any value that decides what is done, not with where it is done."""
        import hashlib

        return hashlib.sha256(self.model_dump_json(exclude={"services", "storage", "retention"}).encode()).hexdigest()[
            :16
        ]


def load_settings(path: Path) -> Settings:
    """Read and check a config file.

    Raises
    ------
    BadConfig: the file is missing, is no YAML, has a key twice, an unknown key or a value that does not fit; the
        sentence names the key and what may stand there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadConfig(
            f"{path}: there is no config file; write one with `softad init DATA`, or name it with --config"
        ) from error
    except IsADirectoryError as error:
        raise BadConfig(f"{path} is a folder, and no config file; name the file in it with --config") from error
    except PermissionError as error:
        raise BadConfig(f"{path}: the config file may not be read; give this user the right to read it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: the config file cannot be read ({error}); save it as UTF-8 text") from error
    document = parsed(text, path)
    if not isinstance(document, dict):
        raise BadConfig(f"{path}: a config is a list of `key: value` lines; this file holds none")
    try:
        settings = Settings(**{**document, "source": path.absolute()})
    except ValidationError as error:
        raise BadConfig(f"{path}: {explain(error)}") from error
    return settings


def explain(error: ValidationError) -> str:
    """The first thing that a config check found, as a sentence with the key's full name."""
    found = error.errors()
    first = found[0]
    key = _key(first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys([str(part) for part in first["loc"][:-1]])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"the key {key!r} is unknown; {hint}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it"
    if key == "name" and first["type"] == "string_pattern_mismatch":
        return f"{key}: write {NAME_SAID} (it is {first['input']!r})"
    # A value that may be of several kinds has an error for each of them.
    same = [one["msg"].removeprefix("Value error, ") for one in found if _key(one["loc"]) == key]
    message = ", or ".join(dict.fromkeys([same[0], *(text[0].lower() + text[1:] for text in same[1:])]))
    hidden = isinstance(first["input"], dict) or key.startswith(_MAY_HOLD_SECRETS)
    shown = "" if hidden else f" (it is {first['input']!r})"
    return f"{key or 'config'}: {message}{shown}"


def _key(location: tuple[str | int, ...]) -> str:
    """As the file has it: pydantic adds the kind that it tried where several are allowed."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part.isidentifier())


def _known_keys(parents: list[str]) -> list[str]:
    model: Any = Settings
    for part in parents:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return [name for name in model.model_fields if name != "source"]


def dump_settings(settings: Settings) -> str:
    """The configuration as YAML, without the values that are the defaults of their section."""
    document = settings.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def environment_overrides() -> dict[str, str]:
    """The variables that change a configuration, for the run's parameters.

    >>> isinstance(environment_overrides(), dict)
    True
    """
    sections = tuple(f"SOFTAD_CONFIG__{name.upper()}" for name in Settings.model_fields)
    secret = tuple(f"SOFTAD_CONFIG__{name.upper()}" for name in _MAY_HOLD_SECRETS)
    found = {key: value for key, value in os.environ.items() if key.startswith(sections)}
    return {key: "…" if key.startswith(secret) else value for key, value in found.items()}
