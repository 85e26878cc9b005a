"""What suits the amount of data: window, network, patience, reference; and the plant's time zone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from flows.columns import Column
from flows.proposal_notes import Note

_ROUND = (50, 100, 200, 500, 1000, 2000)
_WEEK_DAYS = 28
_WEEK_ROWS = 100
_NO_TIME = 0.02
"""A row without a time belongs to no calendar window; where more rows than this have none, rows are counted."""
_OFFSET = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_JAPANESE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class Size:
    """How much there is: rows, rows with a label, features, and whether they are pictures."""

    rows: int
    labelled: int
    features: int
    images: bool


@dataclass(frozen=True)
class WindowChoice:
    """`data.window` of the config, and why."""

    setting: dict[str, Any]
    sentence: str


@dataclass(frozen=True)
class Zone:
    """The time zone, and what it was taken from."""

    name: str
    why: str

    def notes(self, time: str | None) -> list[Note]:
        """A sentence, where there are times to be read."""
        return [Note("time zone", f"time zone: {self.name}, {self.why}.")] if time else []


def choose_window(size: Size, time: Column | None) -> WindowChoice:
    """A calendar week where the times span four weeks with 100 rows each, else about a tenth of the rows.

    >>> choose_window(Size(10_000, 10_000, 5, False), None).setting
    {'rows': 1000}
    """
    if time is not None and time.times is not None:
        moments = time.times[~np.isnat(time.times)]
        days = float((moments.max() - moments.min()) / np.timedelta64(1, "D"))
        a_week = size.rows / max(days / 7.0, 1.0)
        if len(moments) < (1 - _NO_TIME) * len(time.times):
            why = f"{time.name!r} is empty in {1 - len(moments) / len(time.times):.0%} of the rows"
            return _by_rows(size, why)
        if days >= _WEEK_DAYS and a_week >= _WEEK_ROWS:
            text = f"window: a calendar week, about {a_week:,.0f} rows each over {days / 7:.0f} weeks."
            return WindowChoice({"period": "week"}, text)
        why = f"{days:.0f} days are too short for weeks" if days < _WEEK_DAYS else f"only {a_week:.0f} rows a week"
    else:
        why = "there is no time to count weeks by"
    return _by_rows(size, why)


def _by_rows(size: Size, why: str) -> WindowChoice:
    rows = max([count for count in _ROUND if count <= size.rows / 8] or [_ROUND[0]])
    return WindowChoice({"rows": rows}, f"window: every {rows:,} rows in order of arrival, because {why}.")


def choose_zone(columns: Sequence[Column], time: str | None) -> Zone:
    """From the offsets that the times carry, else Japan's where the headers are Japanese, else UTC."""
    column = next((column for column in columns if column.name == time), None)
    if column is not None:
        offsets = {
            found.group(1).replace(":", "") for value in column.values[:1000] if (found := _OFFSET.search(value))
        }
        # A date alone ends in -24 and more digits never, so what was found is an offset.
        if len(offsets) == 1 and ":" in column.values[0]:
            offset = offsets.pop()
            if offset == "+0900":
                return Zone("Asia/Tokyo", "because the times end in +09:00")
            hours = 0 if offset == "Z" else int(offset[:3])
            if offset in ("Z", "+0000", "-0000"):
                return Zone(
                    "UTC", "because the times say so; a plant elsewhere should set data.time_zone, for its weeks"
                )
            if offset.endswith("00") and -12 <= hours <= 14:
                return Zone(ZoneInfo(f"Etc/GMT{-hours:+d}").key, f"because the times end in {offset}")
    if any(_JAPANESE.search(column.name) for column in columns):
        return Zone("Asia/Tokyo", "because the headers are Japanese")
    return Zone("UTC", "because the times do not say which; a plant elsewhere should set data.time_zone")


def choose_training(size: Size, *, by_group: bool) -> dict[str, Any]:
    """A network and a patience that suit the amount of data.

    >>> choose_training(Size(442, 442, 10, False), by_group=False)["hidden"]
    [16]
    """
    rows = size.labelled
    setting: dict[str, Any] = {
        "min_rows": int(np.clip(rows // 2, 20, 200)),
        "split": {"by": "group" if by_group else "stratified"},
    }
    if size.images:
        return {**setting, "model": "cnn", "epochs": 25, "patience": 5, "batch_size": 64 if rows < 5_000 else 128}
    if rows < 600:
        # Few rows: a small net that cannot learn them by heart, and many short epochs.
        return {**setting, "hidden": [16], "epochs": 100, "patience": 15, "batch_size": 32, "learning_rate": 5e-3}
    if rows < 5_000:
        return {
            **setting,
            "hidden": [64, 64] if rows >= 1_500 else [32, 32],
            "epochs": 100,
            "patience": 15,
            "batch_size": 64,
        }
    if rows < 100_000:
        return {**setting, "hidden": [64, 64]}
    return {**setting, "hidden": [128, 128], "epochs": 30, "patience": 5, "batch_size": 1024}


def choose_monitoring(size: Size, window: dict[str, Any]) -> dict[str, Any]:
    """A reference that this much data can fill, and the fewest rows that a window is judged by."""
    setting: dict[str, Any] = {}
    if size.labelled < 2_500:
        setting["min_reference_rows"] = 200
    rows = window.get("rows")
    if rows is not None and rows <= 100:
        setting["min_window_rows"] = max(10, rows // 2)
    return setting


def choose_promotion(size: Size) -> dict[str, Any]:
    """Few rows leave few held out; the gates judge by what there is, and their intervals say how unsure they are."""
    held_out = size.labelled // 4
    return {"min_holdout_rows": max(20, int(0.6 * held_out))} if held_out < 200 else {}


def model_name(data: Path) -> str:
    """The file's name as a model's name.

    >>> model_name(Path("line A/inspection 2026.csv.gz")), model_name(Path("検査.csv"))
    ('inspection-2026', 'model')
    """
    stem = data.name.split(".", maxsplit=1)[0]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", unicodedata.normalize("NFKC", stem)).strip("-_")
    return plain[:64] or "model"
