"""docs/detection.md and its pictures, from the stored figures alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.detection_figures import (
    CELLS,
    NAMES,
    SCAN,
    calm_cell,
    cell_title,
    change_title,
    changes_of,
    detected,
    interval,
)  # fmt: skip
from benchmarks.detection_pictures import detected_picture, false_alarm_picture

ALLOWED = 1.2
"""The upper 95 % limit of the false alarms is to be at most so many times the budget."""

TRIVIAL = "every tenth window"
EARLIER = {
    (2000, 200): {"fewer but harder/1.0": (0.02, 8), "spread out/1.0": (0.00, 1), "more hard rows/1.0": (0.02, 4),
                  "more hard rows/0.5": (0.46, 20), "slow spread/1.0": (0.00, 5)},
    (2000, 1000): {"fewer but harder/1.0": (0.00, 1), "fewer but harder/0.5": (0.15, 6),
                   "more hard rows/1.0": (0.00, 1), "more hard rows/0.5": (0.27, 9)},
    (500, 50): {"spread out/1.0": (0.09, 6)},
}  # fmt: skip
"""Missed and delay of the plain rank scan that this one was to beat: four scores, against the reference alone."""

EARLIER_LIVES = 60

INTRODUCTION = """# What the alarm budget promises, and how other detectors compare

One number is given, the alarm budget: **the probability of any false alarm over a model's whole life** of {windows}
windows, as long as the process is as it was in the reference. At a budget of 0.05, about one life in twenty ends in a
false alarm, whatever the losses look like. None of the other detectors on this page is given such a number.

The promise needs three things: rows (or, where a lot column is given, lots) that could have come in any order as long
as nothing changes; no row of the reference in a window; looks whose time and number of rows do not depend on the
losses. It is a promise over all that chance decides, the reference's own rows too.

What is not promised: a life in which ordinary weeks differ has changes in it, and the thresholds see them. For such
plants an alarm must also be large enough to matter and more than ordinary weeks explain; both are on by default, and
the third table shows what they do. Lives end with their first alarm. Intervals are exact 95 % intervals.

{done}
Rebuild this page with `python benchmarks/detection.py --page`, its figures with `python benchmarks/detection.py`;
`--quick` takes a few minutes.
"""

RIVALS = """## The other detectors

All watch the rows' losses, window by window, as the scan does.

| detector | what it does | threshold that it comes with |
|---|---|---|
| KS with Bonferroni | two-sample Kolmogorov-Smirnov test, each window against the reference | p = 0.10 / 52 |
| Evidently, default column test | up to 1,000 reference rows the same test; above, the Wasserstein distance over the \
reference's standard deviation | p = 0.05; 0.1 |
| mean ± 3 sd over ten chunks | mean loss against those of ten chunks of the reference (NannyML's default) | 3 |
| two of the last five windows | mean loss over a limit in two of the last five windows (the rule of MLOps Stacks) | \
1.1 times the reference's mean; it has no default |
| Page-Hinkley | river's defaults, row by row, the reference first | 50 |
| ADWIN | river's, row by row, the reference first; the first {adwin} lives of each cell | delta 0.002 |
| every tenth window | alarms whatever happens: what any detector must beat | |
"""


def write_page(document: dict[str, Any], folder: Path) -> Path:
    """The page and its pictures; tables whose cells were not run are left out."""
    pictures = folder / "detection"
    pictures.mkdir(parents=True, exist_ok=True)
    cells, size = document["cells"], document["size"]
    lines = [INTRODUCTION.format(windows=52, done=_done(document)), *_unchanged(cells), "", *_harder(cells), ""]
    lines += [*_weeks(cells), "", RIVALS.format(adwin=size["adwin"]), *_as_they_come(cells), ""]
    lines += ["![False alarms over a life](detection/false-alarms.svg)", "", *_equal(cells), *_earlier(cells)]
    lines += [*_named(cells), *_cost(cells)]
    false_alarm_picture(cells, pictures / "false-alarms.svg")
    detected_picture(cells, pictures / "detected.svg")
    page = folder / "detection.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def _done(document: dict[str, Any]) -> str:
    size, hours = document["size"], sum(document["seconds"].values()) / 3600
    return (
        f"Lives: {size['ranks']:,} a cell at rank level (one simulation serves every continuous law of losses), "
        f"{size['weeks']:,} with wandering weeks, {size['changed']:,} for each change; {hours:.1f} hours "
        "of a core that other work shared.\n"
    )


def _named(cells: dict[str, Any]) -> Iterator[str]:
    cases = [(*name.split("/")[1:], found) for name, found in cells.items() if name.startswith("named/")]
    if not cases:
        return
    yield ""
    yield "## Which machine it names"
    yield ""
    yield (
        "Twenty machines, losses log-normal, reference of 2,000 rows; one machine's losses are multiplied, or all "
        "machines'. The judge knows the law of the losses and the factor, and takes the machine with the largest "
        "likelihood ratio: no rule that does not know which machine it is can be right more often."
    )
    yield ""
    yield "| losses of | times | rows of the window | named first | by the judge | any machine called certain |"
    yield "|---|---|---|---|---|---|"
    for factor, rows, where, found in cases:
        first, judge, certain = ([found[key], found["trials"]] for key in ("first", "judge", "significant"))
        who, right = (
            ("all machines", "- | -") if where == "all" else ("one machine", f"{_share(first)} | {_share(judge)}")
        )
        yield f"| {who} | {factor} | {int(rows):,} | {right} | {_share(certain)} |"


def _cost(cells: dict[str, Any]) -> Iterator[str]:
    found = cells.get("cost")
    if found:
        yield ""
        yield "## What it costs"
        yield ""
        yield (
            f"One update on 1,000 rows with 10,000 twins takes {1000 * found['update']:.0f} ms of one core, rebuilding "
            f"the twins after 51 windows {found['replay']:.1f} s; the state is then {found['bytes'] / 1000:.1f} kB."
        )


def _share(counted: list[int]) -> str:
    low, high = interval(*counted)
    return f"{counted[0] / counted[1]:.3f} ({low:.3f}-{high:.3f})"


def _within(counted: list[int], budget: float) -> str:
    return "yes" if interval(*counted)[1] <= ALLOWED * budget else "no"


def _unchanged(cells: dict[str, Any]) -> Iterator[str]:
    yield "## False alarms over a life while nothing changes"
    yield ""
    yield f'The relevant effect is switched off. "Kept": the upper limit is at most {ALLOWED} times the budget.'
    yield ""
    yield "| reference, window | budget 0.05 | budget 0.10 | kept |"
    yield "|---|---|---|---|"
    for name in sorted((each for each in cells if each.startswith("ranks/")), key=_numbers):
        found = cells[name]
        _, reference, rows = name.split("/")
        kept = {_within(found[str(budget)], budget) for budget in (0.05, 0.1)}
        yield (
            f"| {int(reference):,} rows, {int(rows):,} | {_share(found['0.05'])} | {_share(found['0.1'])} "
            f"| {'yes' if kept == {'yes'} else 'no'} |"
        )


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("/") if part.isdigit())


def _harder(cells: dict[str, Any]) -> Iterator[str]:
    rows: list[tuple[str, float, list[int]]] = []
    whole: dict[str, list[int]] = {}
    for name, found in cells.items():
        kind, *rest = name.split("/")
        if kind == "class":
            # From the right: the name of a law may have a stroke of its own.
            law, reference, window, _ = name.removeprefix("class/").rsplit("/", 3)
            title = f"through the class: {law} losses, {int(reference):,} rows, windows of {int(window):,}"
            _count(whole, title, found["0.1"])
        elif kind == "lots":
            title = f"lots of 20 alike at 0.3: {int(rest[0]) * 20:,} rows, windows of {int(rest[1]):,}"
            rows += [(title, 0.05, found["0.05"]), (title, 0.1, found["0.1"])]
        elif kind == "ages":
            title = "looks at labels of 7, 21 and 42 days, defects labelled sooner: 2,000 rows, windows of 200"
            rows.append((f"{title}, 26 windows", 0.1, found["0.1"]))
        elif kind == "chosen":
            title = (
                "suspicious rows labelled ten times as often: reference of 10,000, windows of 1,000 before labelling, "
                "26 windows"
            )
            _count(whole, title, found["0.1"])
    rows += [(title, 0.1, counted) for title, counted in whole.items()]
    yield "## The same where it is harder to keep"
    yield ""
    yield "| what is harder | budget | lives | false alarms | kept |"
    yield "|---|---|---|---|---|"
    for title, budget, counted in sorted(rows):
        yield f"| {title} | {budget:.2f} | {counted[1]:,} | {_share(counted)} | {_within(counted, budget)} |"
    yield ""
    yield (
        "Ranks do not know the law of the losses, so that what the lines through the class count stands in the table "
        "above with more lives. With few lives, as in a quick run, an upper limit is above 1.2 times for that alone."
    )
    naive = [found["by rows, 0.05"] for name, found in cells.items() if name.startswith("lots/")]
    if naive:
        shares = [alarms / lives for alarms, lives in naive]
        yield ""
        yield (
            f"Where the lots are not given and rows are ranked, a budget of 0.05 really is {min(shares):.2f} to "
            f"{max(shares):.2f}: give the lot."
        )


def _count(whole: dict[str, list[int]], title: str, counted: list[int]) -> None:
    """Add a part of a cell to what was counted of it."""
    held = whole.setdefault(title, [0, 0])
    whole[title] = [held[0] + counted[0], held[1] + counted[1]]


def _weeks(cells: dict[str, Any]) -> Iterator[str]:
    yield "## Ordinary weeks that differ"
    yield ""
    yield (
        "The share of hard rows, 10 %, differs from week to week, in the reference as in the windows; weeks of 1,000 "
        "rows, budget 0.05. With the defaults an alarm must also be large enough to matter, and more than ordinary "
        "weeks explain, which is learned from the windows that have gone by."
    )
    yield ""
    yield "| the share moves | reference | thresholds alone | defaults | kept |"
    yield "|---|---|---|---|---|"
    for name, found in cells.items():
        if name.startswith("weeks/"):
            _, kind, reference = name.split("/")
            yield (
                f"| {kind} | {int(reference):,} rows | {_share(found['off'])} | {_share(found['defaults'])} "
                f"| {_within(found['defaults'], 0.05)} |"
            )


def _as_they_come(cells: dict[str, Any]) -> Iterator[str]:
    present = [cell for cell in CELLS if calm_cell(cells, cell)]
    yield "Lives of 52 windows in which nothing changes: the share that has any false alarm, each detector as it comes."
    yield ""
    yield "| detector | " + " | ".join(map(cell_title, present)) + " |"
    yield "|---|" + "---|" * len(present)
    for detector in cells[f"changed/{present[0][0]}/{present[0][1]}/none/1.0"]["comes"] if present else ():
        shares = []
        for cell in present:
            found = (calm_cell(cells, cell) or {})["comes"][detector]
            shares.append(_share([found["any"], found["lives"]]))
        yield f"| {NAMES.get(detector, detector)} | " + " | ".join(shares) + " |"


def _cell(found: dict[str, Any]) -> str:
    """Missed and median delay of the lives that had no alarm before the change."""
    judged = found["lives"] - found["early"]
    if not judged:
        return "no life left"
    delay = "-" if found["delay"] is None else f"{found['delay']:g}"
    return f"{found['missed'] / judged:.2f} / {delay}"


def _pairs(cells: dict[str, Any]) -> Iterator[tuple[str, float, float, int]]:
    """Rival, share detected by the scan and by it at the same real rate of false alarms, and its lives; all cells."""
    for cell in CELLS:
        for found in changes_of(cells, cell).values():
            ours = found["comes"][SCAN]
            for name, rival in found["equal rate"].items():
                yield name, detected(ours), detected(rival), rival["lives"]


def _clearly(ours: float, theirs: float, lives: int) -> bool:
    return theirs - ours > 2 * math.sqrt(max(theirs * (1 - theirs) + ours * (1 - ours), 1e-9) / lives)


def _equal(cells: dict[str, Any]) -> Iterable[str]:
    pairs = list(_pairs(cells))
    if not pairs:
        return
    yield "## What is missed, at equal real false alarms"
    yield ""
    yield (
        "Each of the others is set, on lives of the same losses in which nothing changes, to the threshold at which it "
        "has as many false alarms as the scan has at a budget of 0.10. No plant could do that: it would need thousands "
        "of lives of its own. The change comes in window 26. Share missed among the lives without an alarm before it / "
        'median delay in windows, "-" where more than half are missed.'
    )
    yield ""
    as_often = sum(ours >= theirs for _, ours, theirs, _ in pairs)
    real = [(ours, theirs) for name, ours, theirs, _ in pairs if name != TRIVIAL]
    real_often = sum(ours >= theirs for ours, theirs in real)
    yield (
        f"The scan finds the change at least as often in {as_often} of {len(pairs)} comparisons "
        f"({100 * as_often / len(pairs):.0f} %); without the detector that alarms every tenth window in {real_often} "
        f"of {len(real)} ({100 * real_often / len(real):.0f} %)."
    )
    yield ""
    yield "| against | cells | the scan finds it at least as often | the other clearly more often (2 standard errors) |"
    yield "|---|---|---|---|"
    for rival in dict.fromkeys(name for name, *_ in pairs):
        own = [pair[1:] for pair in pairs if pair[0] == rival]
        often = sum(ours >= theirs for ours, theirs, _ in own)
        yield f"| {rival} | {len(own)} | {often} | {sum(_clearly(*pair) for pair in own)} |"
    yield ""
    yield (
        "Page-Hinkley sums all rows since the life began, and so is better at small changes of the mean that last; it "
        "is blind where the mean stays, late at jumps, and no plant could find its threshold."
    )
    yield ""
    yield "![Share of lives in which the change is found](detection/detected.svg)"
    for cell in CELLS:
        changes = changes_of(cells, cell)
        if not changes:
            continue
        others = list(next(iter(changes.values()))["equal rate"])
        rate = (calm_cell(cells, cell) or {})["equal"]
        yield ""
        yield f"### {cell_title(cell)}"
        yield ""
        yield f"All at {rate['rate']:.3f} false alarms a life; ADWIN at its nearest step, delta {rate['adwin']:g}."
        yield ""
        yield "| change | scan | scan with its defaults | " + " | ".join(others) + " |"
        yield "|---|---|---|" + "---|" * len(others)
        for change, found in changes.items():
            shown = [found["comes"][SCAN], found["comes"]["scan with defaults, 0.10"]]
            shown += [found["equal rate"][other] for other in others]
            yield f"| {change_title(change)} | " + " | ".join(map(_cell, shown)) + " |"


def _earlier(cells: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Against the plain rank scan"
    yield ""
    yield (
        f"The figures that this scan was to beat ({EARLIER_LIVES} lives each): four scores, each window sum against "
        "the reference alone. Budget 0.10, relevant effect off."
    )
    yield ""
    yield "| reference, window | change | plain scan, missed / delay | scan, missed / delay | not worse |"
    yield "|---|---|---|---|---|"
    for cell, figures in EARLIER.items():
        changes = changes_of(cells, cell)
        for change, (missed, delay) in figures.items():
            if change not in changes:
                continue
            found = changes[change]["comes"][SCAN]
            judged = found["lives"] - found["early"]
            share = found["missed"] / judged
            error = math.sqrt(missed * (1 - missed) / EARLIER_LIVES + share * (1 - share) / judged)
            fine = "yes" if share - missed <= 2 * error else "no"
            yield (
                f"| {cell_title(cell)} | {change_title(change)} | {missed:.2f} / {delay} | {_cell(found)} | {fine} |"
            )
