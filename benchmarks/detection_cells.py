"""The cells of the benchmark: lives in which nothing changes, and lives that change at window 26."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.detection_lives import (
    CHANGE_AT,
    HORIZON,
    Array,
    Ranked,
    draw_lives,
    first_alarm,
    ranked,
    relevant,
    spacings_of,
    statistics,
    thresholds,
    unchanged_counts,
)  # fmt: skip
from benchmarks.detection_rivals import (
    ADWIN_LIVES,
    DELTAS,
    adwin_alarms,
    alarms_at,
    batches,
    equal_threshold,
    rival_statistics,
    rivals,
)  # fmt: skip
from monitoring.effect import ordinary_change
from monitoring.lives import SCALES, History, components
from monitoring.lots import LOT_STATISTICS
from monitoring.ranks import scores_of
from monitoring.scan import ConcentrationScan
from monitoring.weeks import WeekSums, prior_variance
from softad.simulation_losses import BASE, loss_law

BUDGETS = (0.05, 0.10)
PARTS = 9
"""Lives through the class are counted in so many parts, so that an interrupted run loses little."""

CLASS_TWINS = 1_040
"""Twins of lives through the class, two for each window's share of a budget of 0.10: by default there are ten times as
many, which costs time and moves no expected number of false alarms."""

EFFECT = 1.15
"""The scan's default smallest relevant effect."""

CELLS = ((2000, 200), (2000, 1000), (500, 50))
"""Rows of the reference and of a window in which detectors are compared."""

CHANGED = (
    ("fewer but harder", 1.0), ("fewer but harder", 0.5), ("spread out", 1.0), ("spread out", 0.5),
    ("more hard rows", 1.0), ("more hard rows", 0.5), ("harder hard rows", 1.0), ("harder hard rows", 0.5),
    ("all a little harder", 1.0), ("all a little harder", 0.5), ("slow spread", 1.0), ("passing", 1.0),
)  # fmt: skip
"""Changes and how much of each."""


@dataclass(frozen=True)
class Size:
    """How many lives each cell gets; `looked` those whose labels come early or are chosen."""

    ranks: int
    through_class: int
    looked: int
    lots: int
    weeks: int
    changed: int
    named: int
    adwin: int = ADWIN_LIVES
    twin_sets: int = 2


FULL = Size(ranks=20_000, through_class=4_500, looked=2_000, lots=4_000, weeks=1_000, changed=1_000, named=2_000)
QUICK = Size(
    ranks=2_000, through_class=36, looked=40, lots=1_000, weeks=100, changed=100, named=200, adwin=10, twin_sets=1
)


def generator(*parts: Any) -> np.random.Generator:
    """A stream of its own for each cell, the same in every run."""
    return np.random.default_rng([ord(letter) for letter in "/".join(map(str, parts))])


def by_ranks(reference: int, rows: int, size: Size) -> dict[str, Any]:
    """False alarms while nothing changes, at rank level; the relevant effect switched off."""
    rng = generator("ranks", reference, rows)
    plan = [rows] * HORIZON
    alarms = dict.fromkeys(BUDGETS, 0)
    lives = size.ranks // size.twin_sets
    for twins in range(size.twin_sets):
        limits = {budget: thresholds(reference, plan, budget, lives=_twins(budget), seed=twins) for budget in BUDGETS}
        for part in batches(lives, 2_000):
            found = statistics(reference, unchanged_counts(reference, plan, part, rng))
            for budget in BUDGETS:
                alarms[budget] += int(np.isfinite(first_alarm(found, limits[budget])).sum())
    return {str(budget): [alarms[budget], lives * size.twin_sets] for budget in BUDGETS}


def _twins(budget: float) -> int:
    return ConcentrationScan(budget, HORIZON).lives


def by_lots(lots: int, rows: int, size: Size) -> dict[str, Any]:
    """False alarms where rows of a lot are alike: lots of 20, correlation 0.3 of the log losses, the lot given."""
    rng = generator("lots", lots, rows)
    per_window = rows // 20
    plan = [per_window] * HORIZON
    views = len(LOT_STATISTICS)
    limits = {budget: thresholds(lots, plan, budget / views, lives=_twins(budget), seed=0) for budget in BUDGETS}
    by_row = thresholds(lots * 20, [rows] * HORIZON, 0.05, lives=_twins(0.05), seed=0)
    alarms, naive, done = dict.fromkeys(BUDGETS, 0), [0, 0], 0
    for part in batches(size.lots, max(20, 20_000 // rows)):
        units = lots + HORIZON * per_window
        shared = rng.normal(size=(part, units, 1))
        losses = np.exp(np.sqrt(0.3) * shared + np.sqrt(0.7) * rng.normal(size=(part, units, 20)))
        ordered = np.sort(losses, axis=2)
        numbers = (losses.mean(axis=2), ordered[:, :, -2:].mean(axis=2))
        firsts = []
        for values in numbers:
            references = np.sort(values[:, :lots], axis=1)
            held = ranked(references, values[:, lots:].reshape(part, HORIZON, per_window))
            firsts.append(statistics(lots, held.counts))
        for budget in BUDGETS:
            first = np.minimum(*(first_alarm(found, limits[budget]) for found in firsts))
            alarms[budget] += int(np.isfinite(first).sum())
        if done < size.lots // 10:
            references = np.sort(losses[:, :lots].reshape(part, -1), axis=1)
            held = ranked(references, losses[:, lots:].reshape(part, HORIZON, rows))
            found = statistics(lots * 20, held.counts)
            naive = [naive[0] + int(np.isfinite(first_alarm(found, by_row)).sum()), naive[1] + part]
        done += part
    return {str(budget): [alarms[budget], size.lots] for budget in BUDGETS} | {"by rows, 0.05": naive}


LAWS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "log-normal": lambda rng, rows: rng.lognormal(size=rows),
    "Pareto 1.5": lambda rng, rows: rng.pareto(1.5, size=rows),
    "0/1": lambda rng, rows: (rng.random(rows) < 0.05).astype(float),
}


def through_class(law: str, reference: int, rows: int, part: int, size: Size) -> dict[str, Any]:
    """False alarms of whole lives through `ConcentrationScan`; budget 0.10, no relevant effect; one of `PARTS`."""
    alarms, lives = 0, size.through_class // PARTS
    for life in range(part * lives, (part + 1) * lives):
        rng = generator("class", law, life)
        scan = ConcentrationScan(0.10, HORIZON, rows, None, seed=life, lives=CLASS_TWINS)
        scan.fit(LAWS[law](rng, reference))
        alarms += any(scan.update(LAWS[law](rng, rows)).alarm for _ in range(HORIZON))
    return {"0.1": [alarms, lives]}


def at_ages(size: Size) -> dict[str, Any]:
    """Three looks at each window, at labels of 7, 21 and 42 days; defects are labelled sooner, as they always were."""
    alarms, horizon = 0, 26
    for life in range(size.looked // 2):
        rng = generator("ages", life)
        scan = ConcentrationScan(0.10, horizon, 200, None, seed=life, lives=CLASS_TWINS, label_age=(7, 21, 42))
        losses, ages = labelled(rng, 2_000)
        scan.fit(losses, ages=ages)
        found = False
        for window in range(horizon):
            losses, ages = labelled(rng, 200)
            found |= any(scan.update(losses[ages <= age], window=window, age=age).alarm for age in (7, 21, 42))
        alarms += found
    return {"0.1": [alarms, size.looked // 2]}


def labelled(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Losses, and days until the label: up to 2 weeks for hard rows, up to 6 for the others."""
    hard = rng.random(rows) < 0.1
    losses = np.where(hard, rng.gamma(2.0, 1.5, rows), rng.gamma(1.0, 0.15, rows))
    return losses, np.where(hard, rng.integers(0, 15, rows), rng.integers(0, 43, rows)).astype(float)


def chosen(part: int, size: Size) -> dict[str, Any]:
    """Suspicious rows are labelled ten times as often as the others, with known probabilities; one of two parts."""
    alarms, horizon, lives = 0, 26, size.looked // 2
    for life in range(part * lives, (part + 1) * lives):
        rng = generator("chosen", life)

        def draw(rows: int, rng: np.random.Generator = rng) -> tuple[Array, Array]:
            losses = BASE.draw(rows, rng)
            suspicious = losses * rng.lognormal(sigma=0.5, size=rows) > 1.0
            chance = np.where(suspicious, 1.0, 0.1)
            taken = rng.random(rows) < chance
            return losses[taken], chance[taken]

        scan = ConcentrationScan(0.10, horizon, 200, None, seed=life, lives=CLASS_TWINS)
        losses, chance = draw(10_000)
        scan.fit(losses, probabilities=chance)
        for _ in range(horizon):
            losses, chance = draw(1_000)
            if scan.update(losses, probabilities=chance).alarm:
                alarms += 1
                break
    return {"0.1": [alarms, lives]}


def cost(_size: Size) -> dict[str, Any]:
    """Processor time of updates on 1,000 rows with 10,000 twins, of a replay of 51 windows, and the state's size."""
    rng = generator("cost")
    scan = ConcentrationScan(0.10, HORIZON, 1_000, 50.0, seed=1, lives=10_000).fit(rng.lognormal(size=2_000))
    taken = []
    for window in range(HORIZON - 1):
        losses, ids = rng.lognormal(size=1_000), [f"{window}-{row}" for row in range(1_000)]
        begin = time.process_time()
        scan.update(losses, ids=ids, window=f"2026-W{window:02d}")
        taken.append(time.process_time() - begin)
    text = json.dumps(scan.to_dict())
    begin = time.process_time()
    ConcentrationScan.from_dict(json.loads(text)).threshold_for(1_000)
    return {
        "update": round(float(np.median(taken[16:])), 4),
        "replay": round(time.process_time() - begin, 2),
        "bytes": len(text),
    }


WANDERING: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "two points up or down": lambda rng, shape: rng.choice([-0.02, 0.02], shape),
    "evenly within two points": lambda rng, shape: rng.uniform(-0.02, 0.02, shape),
    "standard deviation of two points": lambda rng, shape: rng.normal(0.0, 0.02, shape),
    "not at all": lambda _rng, shape: np.zeros(shape),
}
"""How the share of hard rows, 10 %, differs from week to week."""


def wandering(kind: str, reference: int, size: Size) -> dict[str, Any]:
    """Weeks of 1,000 rows whose share of hard rows wanders, in the reference too; budget 0.05, defaults on and off."""
    rng = generator("weeks", kind, reference)
    rows, weeks = 1_000, reference // 1_000
    limits = thresholds(reference, [rows] * HORIZON, 0.05, lives=_twins(0.05), seed=0)
    parts = []
    for part in batches(size.weeks, 50):
        share = np.clip(0.1 + WANDERING[kind](rng, (part, weeks + HORIZON, 1)), 0.0, 1.0)
        shape = (part, weeks + HORIZON, rows)
        losses = np.where(rng.random(shape) < share, rng.gamma(2.0, 1.5, shape), rng.gamma(1.0, 0.15, shape))
        parts.append(ranked(np.sort(losses[:, :weeks].reshape(part, -1), axis=1), losses[:, weeks:]))
    held = Ranked.together(parts)
    return {
        "off": [int(np.isfinite(first_alarm(statistics(reference, held.counts), limits)).sum()), size.weeks],
        "defaults": [int(np.isfinite(with_defaults(reference, rows, held, limits)).sum()), size.weeks],
    }


def with_defaults(reference: int, rows: int, held: Ranked, limits: Array) -> Array:
    """First alarm of each life with the smallest relevant effect and the guard against ordinary weeks, both on."""
    matter = relevant(held.counts, held.sums, held.edges, held.first, spacings_of(reference), EFFECT)
    return first_alarm(cautious(reference, held.counts, max(1, round(reference / rows))), limits, matter)


def cautious(reference: int, counts: Array, weeks: int) -> dict[int, Array]:
    """As `statistics`, ordinary differences between weeks being part of the noise (`Life.components` in bulk)."""
    scores = scores_of(spacings_of(reference))
    looks, _, lives = counts.shape
    found = {scale: np.full((looks, lives), -np.inf) for scale in SCALES}
    shape = (len(scores.names), lives)
    history = History(total=np.zeros(shape))
    prior = prior_variance(scores.moved, ordinary_change(EFFECT))[:, None]
    sums: list[Array] = []
    rows: list[int] = []
    # Windows that have left each scale, and so count as ordinary weeks.
    before = {scale: WeekSums.none(*shape) for scale in SCALES}
    for look, now in enumerate(counts):
        sums.append(scores.values @ now.astype(np.float64))
        rows.append(int(now[:, 0].sum()))
        history = history.then(sums[-1], rows[-1])
        factors: dict[tuple[int, str], Array] = {}
        for scale in SCALES:
            if look + 1 < scale:
                continue
            if look >= scale:
                before[scale] = before[scale].plus(sums[look - scale], rows[look - scale])
            between, recent = before[scale].variance(prior), sum(rows[-scale:])
            for name, base_weeks, base_rows in (
                ("reference", weeks, reference),
                ("earlier", weeks + look + 1 - scale, reference + sum(rows) - recent),
            ):
                ordinary = between * (1 / scale + 1 / base_weeks) / (1 / recent + 1 / base_rows)
                factors[scale, name] = np.sqrt(1 + ordinary)
        for part in components(history, scores, reference_rows=reference, horizon=HORIZON):
            values = part.values / factors[part.windows, part.baseline]
            found[part.windows][look] = np.maximum(found[part.windows][look], values.max(axis=0))
    return found


def changed(
    reference: int, rows: int, change: str, strength: float, size: Size, calm: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Every detector on the same lives.

    With the change "none" also what the detectors need to have the scan's real rate of false alarms (`calm` of the
    other changes).
    """
    rng = generator("changed", reference, rows, change, strength)
    statistic: dict[str, list[Array]] = {}
    parts, adwin, left = [], [], size.adwin
    for part in batches(size.changed, max(10, 50_000 // rows)):
        references, windows = draw_lives(
            reference, rows, part, rng, before=BASE,
            law_at=lambda window: loss_law(change, windows_since=window - CHANGE_AT, strength=strength),
        )  # fmt: skip
        parts.append(ranked(references, windows))
        for name, values in rival_statistics(references, windows, rng).items():
            statistic.setdefault(name, []).append(values)
        if left > 0:
            adwin.append(adwin_alarms(rng.permuted(references, axis=1), windows, left))
            left -= part
    held = Ranked.together(parts)
    numbers = {name: np.concatenate(values, axis=1) for name, values in statistic.items()}
    ours = statistics(reference, held.counts)
    first: dict[str, Array] = {}
    for budget in BUDGETS:
        limits = thresholds(reference, [rows] * HORIZON, budget, lives=_twins(budget), seed=0)
        first[f"scan, {budget:.2f}"] = first_alarm(ours, limits)
        first[f"scan with defaults, {budget:.2f}"] = with_defaults(reference, rows, held, limits)
    for rival in rivals(reference, rows, 0.10):
        first[rival.name] = alarms_at(numbers[rival.key], rival.threshold)
    first["ADWIN"], *_ = streams = np.concatenate(adwin, axis=1)
    if calm is None:
        rate = float(np.isfinite(first["scan, 0.10"]).mean())
        limits_at = {key: equal_threshold(values, rate) for key, values in numbers.items()}
        shares = np.isfinite(streams).mean(axis=1)
        calm = {"equal": {"rate": rate, "limits": limits_at, "delta": int(np.abs(shares - rate).argmin())}}
    equal = {
        rival.name: alarms_at(numbers[rival.key], calm["equal"]["limits"][rival.key])
        for rival in rivals(reference, rows, 0.10)
    }
    equal["ADWIN"] = streams[calm["equal"]["delta"]]
    found: dict[str, Any] = {"comes": _summary(first), "equal rate": _summary(equal)}
    if change == "none":
        found["equal"] = calm["equal"] | {"adwin": DELTAS[calm["equal"]["delta"]]}
    return found


def _summary(first: dict[str, Array]) -> dict[str, Any]:
    """Of each detector: lives, those with any alarm, those with one before the change, missed of the rest, delay."""
    found = {}
    for name, windows in first.items():
        open_lives = windows[windows >= CHANGE_AT]
        delay = float(np.median(open_lives) - CHANGE_AT + 1) if open_lives.size else np.inf
        found[name] = {
            "lives": windows.size,
            "any": int(np.isfinite(windows).sum()),
            "early": int(windows.size - open_lives.size),
            "missed": int(np.isinf(open_lives).sum()),
            "delay": delay if np.isfinite(delay) else None,
        }
    return found
