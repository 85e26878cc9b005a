"""The parts of the configuration that say when the model is watched, and who is told."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from flows.sections import Section

Positive = Annotated[float, Field(gt=0.0)]
Age = Annotated[float, Field(ge=0.0, le=3660.0)]


class Monitoring(Section):
    """When the loss concentration counts as shifted, and where a cause is sought."""

    alarm_budget: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    windows: Annotated[int, Field(ge=1)] = 52
    label_age_days: Age | Annotated[list[Age], Field(min_length=1, max_length=6)] = Field(
        default=3.0, description="several: each window is looked at once at each age"
    )
    label_selection: Literal["all", "probability", "unknown"] = Field(
        default="all", description="how the parts that get a label are chosen"
    )
    min_reference_rows: Annotated[int, Field(ge=200)] = 500
    min_window_rows: Annotated[int, Field(ge=10)] = 50
    relevant_effect: Annotated[float, Field(ge=1.0)] = 1.15
    inspect_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    report_rows: Annotated[int, Field(ge=100, le=20_000)] = 1_000
    html_reports: Annotated[int, Field(ge=0)] = 8
    seed: int = 0

    @field_validator("label_age_days")
    @classmethod
    def _each_age_once(cls, value: float | list[float]) -> float | list[float]:
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("an age is listed twice; write each once, such as [7, 21, 42]")
        return value

    @property
    def label_ages(self) -> tuple[float, ...]:
        """Days after a window's end at which it is looked at, the youngest first."""
        ages = self.label_age_days
        return tuple(sorted(ages)) if isinstance(ages, list) else (ages,)


class Alerts(Section):
    """Who is told, in which language, and who is told when nobody acts."""

    language: Literal["en", "ja"] = "en"
    channels: list[str] = Field(default_factory=list, description="Apprise URLs; the log and a file always")
    page_url: str | None = None
    timeout_seconds: Positive = 10.0
    patience_seconds: Annotated[float, Field(ge=0.0, le=600.0)] = 30.0
    responsible: str | None = Field(default=None, description="who is to answer, in the plant's words")
    escalate_after_hours: Positive = 24.0
    escalate_to: list[str] = Field(default_factory=list, description="Apprise URLs told then, besides the channels")
    superior: str | None = Field(default=None, description="whom escalate_to reaches, in the plant's words")
    recovery_windows: Annotated[int, Field(ge=1)] = 2
    failures_in_a_row: Annotated[int, Field(ge=1)] = 2

    @field_validator("channels", "escalate_to")
    @classmethod
    def _parses(cls, value: list[str]) -> list[str]:
        from monitoring.channels import understood

        for number, url in enumerate(value, start=1):
            if not understood(url):
                # Only what is a scheme is shown: without one, the text before a colon may be a name or a key.
                scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}(?=://)", url)
                shown = f"{scheme.group(0)}:…" if scheme else "no scheme"
                raise ValueError(f"channel {number} ({shown}) is not an address that Apprise understands")
        return value
