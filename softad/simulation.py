"""A simulated inspection line: rows as a plant exports them, with a change of the process on demand.

Several machines in a few lines make parts of several products. Each part has a true condition; sensors of its machine,
each with its own offset, measure it with noise; a tool wears and is replaced. A part is a defect where its true
condition lies beyond a limit. Few parts are hard: their surface spoils the measurement, so no model can tell them.

Within a week each machine goes through whole wear cycles and parts come at times that are uniform over the week, so
that without a change the rows of all weeks have one and the same law, and are independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Change = Literal["none", "concentrated", "spread", "mean"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Sensor:
    """Typical value and spread in the unit that the name says, the decimals that a plant exports."""

    typical: float
    spread: float
    decimals: int


_SENSORS: Mapping[str, _Sensor] = {
    "temperature_c": _Sensor(182.0, 4.0, 1),
    "pressure_bar": _Sensor(61.0, 2.5, 2),
    "vibration_mm_s": _Sensor(9.0, 0.8, 3),
    "torque_nm": _Sensor(34.0, 1.6, 2),
    "current_a": _Sensor(12.0, 0.5, 3),
    "cycle_time_s": _Sensor(27.5, 0.9, 2),
    "width_deviation_um": _Sensor(0.0, 6.0, 1),
    "roughness_um": _Sensor(4.2, 0.4, 3),
}

NUMERIC = tuple(_SENSORS)
"""Measurements, each with its unit in its name."""

CATEGORICAL = ("machine", "product")
"""Columns that a model should see beside the measurements."""

SLICES = ("line", "machine", "product", "shift")
"""Columns in which a cause may be sought."""

CLASSES = ("ok", "defect")
"""Labels; the first is the normal one."""

PRODUCTS = ("P-110", "P-120", "P-210", "P-220", "P-300")
"""Products, equally frequent."""

# Three causes move several true conditions together: hardness of the material, heat, and how the part is held.
_LOADINGS = np.array(
    [
        [0.0, 0.3, 0.0, 0.7, 0.6, 0.0, 0.0, 0.2],
        [0.7, 0.2, 0.0, 0.0, 0.2, 0.6, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.2, 0.0, 0.0, 0.5, 0.3],
    ]
)
_WEAR = np.array([0.2, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.9])
_FIRST_WEEK = -10_000

# Everything below is in spreads of the measurement.
NOISE, HARD_NOISE, HARD_SHARE = 0.25, 1.3, 0.03
"""Noise of a measurement, noise where the part is a hard one, and share of hard parts."""

MEAN_NOISE, MEAN_HARD_SHARE = 0.42, 0.05
"""The same after the change "mean": all is harder in proportion, so that the mean loss rises by a third to a half."""

DISPLACED = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5])
"""Which sensors a change displaces, and in which proportion: those of temperature, vibration and roughness."""

CONCENTRATED, SPREAD = 2.2, 0.5
"""How far: so far at one machine that its rows lie where no row lay before, a little at all machines."""

LIMIT = 3.4
"""A part whose badness is above it is a defect: about seven in a hundred."""


@dataclass(frozen=True)
class WeekData:
    """What the plant exports for one week.

    Attributes
    ----------
    inspections: one row per part, in order of time: id, time (ISO 8601), line, machine, product, shift, and the
        measurements `NUMERIC`; a few measurements are missing.
    labels: one row per part, in order of labelled_at: id, label (one of `CLASSES`), labelled_at (ISO 8601).
    """

    inspections: pd.DataFrame
    labels: pd.DataFrame


@dataclass(frozen=True)
class _Law:
    """How parts are made and measured; arrays have a place per measurement.

    Attributes
    ----------
    noise: of a measurement, in spreads.
    hard_share, hard_noise: share of hard parts, and the noise of their measurements.
    displaced: (machines, 8) what the sensors of each machine show too much, in spreads.
    """

    noise: float
    hard_share: float
    hard_noise: float
    displaced: Floats


class InspectionLine:
    """A line of machines whose parts are inspected.

    Parameters
    ----------
    seed: of everything, at least 0. The rows of a week depend on it and the week only, not on the order of calls.
    machines, lines: how many; every line has at least one machine.
    rows_per_week: parts inspected in a week, at least 1.
    change: what happens from `change_week` on. "concentrated": sensors of one machine, chosen by the seed, are
        displaced, so that a model calls its good parts defects. "spread": those sensors of all machines are, by less.
        "mean": all parts are measured less well, which raises the mean loss and leaves its concentration nearly
        as it was. "none": nothing.
    change_week: the first week with the change.
    start: the Monday on which week 1 begins; week 0 and those before are history.
    label_delay_days: from and to how many days after the inspection its label comes, uniformly.
    bad_share: share of rows with a fault of the export: text in a measurement, an impossible number, a machine or a
        time that is missing.
    missing_share: share of values missing in each measurement.
    time_zone: in which weeks, shifts and times are.
    with_offset: whether times are written with the offset of the time zone, or as bare local time.

    Raises
    ------
    ValueError: an argument out of range, a change without its week, a start that is no Monday.

    >>> line = InspectionLine(seed=1, rows_per_week=4, change="concentrated", change_week=10)
    >>> week = line.week(1)
    >>> list(week.inspections.columns[:6]), len(week.labels)
    (['id', 'time', 'line', 'machine', 'product', 'shift'], 4)
    >>> line.changed
    ('machine', 'M04')
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        machines: int = 12,
        lines: int = 3,
        rows_per_week: int = 2000,
        change: Change = "none",
        change_week: int | None = None,
        start: date = date(2026, 1, 5),
        label_delay_days: tuple[float, float] = (0.0, 3.0),
        bad_share: float = 0.0,
        missing_share: float = 0.003,
        time_zone: str = "UTC",
        with_offset: bool = True,
    ) -> None:
        _require(seed >= 0, f"seed is {seed}; it must be at least 0")
        _require(
            1 <= lines <= machines <= 99,
            f"machines is {machines} and lines is {lines}; it must be 1 <= lines <= machines <= 99",
        )
        _require(rows_per_week >= 1, f"rows_per_week is {rows_per_week}; it must be at least 1")
        _require(change in get_args(Change), f"change is {change!r}; it must be one of {', '.join(get_args(Change))}")
        _require(change == "none" or change_week is not None, f"change is {change!r}: change_week must say from when")
        _require(start.weekday() == 0, f"start is {start}; it must be a Monday")
        low, high = label_delay_days
        _require(0.0 <= low <= high, f"label_delay_days is {label_delay_days}; it must be 0 <= from <= to")
        for name, share in (("bad_share", bad_share), ("missing_share", missing_share)):
            _require(0.0 <= share <= 1.0, f"{name} is {share}; it must lie between 0 and 1")
        self.seed = seed
        self.rows_per_week = rows_per_week
        self.change: Change = change
        self.change_week = change_week if change != "none" else None
        self.start = start
        self.label_delay_days = (float(low), float(high))
        self.bad_share = bad_share
        self.missing_share = missing_share
        self.zone = ZoneInfo(time_zone)
        self.with_offset = with_offset
        self.repaired_week: int | None = None
        self.machine_names = [f"M{number:02d}" for number in range(1, machines + 1)]
        self.line_names = [f"L{1 + number * lines // machines}" for number in range(machines)]
        rng = self._rng(0)
        self._offsets = rng.normal(0.0, 0.35, (machines, len(NUMERIC)))
        self._levels = rng.normal(0.0, 0.5, (len(PRODUCTS), len(NUMERIC)))
        self._cycles = rng.integers(2, 6, machines)
        self._phases = rng.random(machines)
        self._changed = int(rng.integers(machines))

    @property
    def changed(self) -> tuple[str, str] | None:
        """Column and value where a concentrated change sits; None for the other changes."""
        return ("machine", self.machine_names[self._changed]) if self.change == "concentrated" else None

    def week_key(self, number: int) -> str:
        """The ISO week that a week of the line is.

        >>> InspectionLine().week_key(1), InspectionLine().week_key(0)
        ('2026-W02', '2026-W01')
        """
        year, week, _ = (self.start + timedelta(weeks=number - 1)).isocalendar()
        return f"{year}-W{week:02d}"

    def repair(self, week: int) -> None:
        """From this week on a concentrated change is gone; any other change, or none, is left as it is."""
        if self.change == "concentrated":
            self.repaired_week = week

    def week(self, number: int) -> WeekData:
        """The rows and labels of a week; week 1 begins at `start`, 0 and below are history.

        Raises
        ------
        ValueError: a week more than ten thousand weeks before the start.

        >>> line = InspectionLine(seed=3, rows_per_week=200)
        >>> line.week(5).labels.equals(InspectionLine(seed=3, rows_per_week=200).week(5).labels)
        True
        """
        _require(number > _FIRST_WEEK, f"week is {number}; it must lie above {_FIRST_WEEK}")
        rng = self._rng(number - _FIRST_WEEK)
        rows = self.rows_per_week
        monday = self.start + timedelta(weeks=number - 1)
        moment = np.sort(rng.random(rows))
        machine = rng.integers(len(self.machine_names), size=rows)
        product = rng.integers(len(PRODUCTS), size=rows)
        measured, defect = self._parts(moment, machine, product, self._law(number), rng)
        ids = [f"{monday:%y%m%d}-{serial:05d}" for serial in range(1, rows + 1)]
        begin, end = (self._midnight(day) for day in (monday, monday + timedelta(days=7)))
        inspected = begin + pd.to_timedelta((moment * (end - begin).total_seconds()).round(), unit="s")
        local = inspected.tz_convert(self.zone)
        names = np.array(["night", "early", "late"])
        inspections = pd.DataFrame(
            {
                "id": ids,
                "time": self._text(inspected),
                "line": np.array(self.line_names)[machine],
                "machine": np.array(self.machine_names)[machine],
                "product": np.array(PRODUCTS)[product],
                "shift": names[(local.hour.to_numpy() + 2) // 8 % 3],
            }
        )
        missing = rng.random(measured.shape) < self.missing_share
        for place, (name, sensor) in enumerate(_SENSORS.items()):
            values = np.round(sensor.typical + sensor.spread * measured[:, place], sensor.decimals)
            inspections[name] = np.where(missing[:, place], np.nan, values)
        delay = rng.uniform(*self.label_delay_days, size=rows) * 86_400
        labelled = inspected + pd.to_timedelta(delay.round(), unit="s")
        labels = pd.DataFrame({"id": ids, "label": np.array(CLASSES)[defect], "labelled_at": self._text(labelled)})
        order = np.argsort(labelled.to_numpy(), kind="stable")
        labels = labels.iloc[order].reset_index(drop=True)
        return WeekData(_spoil(inspections, self.bad_share, rng), labels)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream,)))

    def _law(self, week: int) -> _Law:
        displaced = np.zeros((len(self.machine_names), len(NUMERIC)))
        noise, hard_share = NOISE, HARD_SHARE
        if self.change_week is not None and week >= self.change_week:
            if self.change == "concentrated" and (self.repaired_week is None or week < self.repaired_week):
                displaced[self._changed] = CONCENTRATED * DISPLACED
            elif self.change == "spread":
                displaced[:] = SPREAD * DISPLACED
            elif self.change == "mean":
                noise, hard_share = MEAN_NOISE, MEAN_HARD_SHARE
        return _Law(noise, hard_share, HARD_NOISE, displaced)

    def _parts(
        self, moment: Floats, machine: Integers, product: Integers, law: _Law, rng: np.random.Generator
    ) -> tuple[Floats, Integers]:
        """Measurements in spreads, shape (n, 8), and 1 for a defect, shape (n,)."""
        rows = len(moment)
        worn = (self._cycles[machine] * moment + self._phases[machine]) % 1.0
        causes = rng.standard_normal((rows, len(_LOADINGS)))
        own = np.sqrt(1.0 - (_LOADINGS**2).sum(axis=0))
        condition = causes @ _LOADINGS + own * rng.standard_normal((rows, len(NUMERIC))) + np.outer(worn - 0.5, _WEAR)
        hard = rng.random(rows) < law.hard_share
        noise = np.where(hard, law.hard_noise, law.noise)[:, None] * rng.standard_normal(condition.shape)
        defect = (_badness(condition) > LIMIT).astype(np.int64)
        shown = condition + self._offsets[machine] + self._levels[product] + law.displaced[machine] + noise
        return shown, defect

    def _midnight(self, day: date) -> pd.Timestamp:
        return pd.Timestamp(datetime(day.year, day.month, day.day, tzinfo=self.zone)).tz_convert("UTC")

    def _text(self, times: pd.DatetimeIndex) -> NDArray[np.str_]:
        local = times.tz_convert(self.zone).tz_localize(None)
        text = np.datetime_as_string(local.to_numpy(), unit="s")
        if not self.with_offset:
            return text
        minutes = ((local - times.tz_localize(None)) // pd.Timedelta(minutes=1)).to_numpy()
        known, place = np.unique(minutes, return_inverse=True)
        offsets = [f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" for offset in known]
        return np.strings.add(text, np.array(offsets)[place])


def _badness(condition: Floats) -> Floats:
    """How bad a part truly is, from its condition (n, 8): rough, shaking, too warm, or too far off in width."""
    temperature, _, vibration, torque, _, _, width, roughness = condition.T
    badness: Floats = (
        0.9 * roughness + 0.9 * vibration + 1.0 * temperature + 0.5 * np.abs(width) + 0.5 * np.maximum(torque, 0.0)
    )
    return badness


def _spoil(inspections: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Rows with faults as exports have them, a quarter of them of each kind."""
    picked = np.flatnonzero(rng.random(len(inspections)) < share)
    faults: list[tuple[str, object]] = [
        ("torque_nm", "ERR"),
        ("pressure_bar", -9999.0),
        ("machine", None),
        ("time", None),
    ]
    for kind, (column, fault) in enumerate(faults[: len(picked)]):
        values = inspections[column].astype(object).to_numpy(copy=True)
        values[picked[kind :: len(faults)]] = fault
        inspections[column] = values
    return inspections


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
