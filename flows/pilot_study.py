"""`softad pilot`: from a file that nobody prepared to a report that one can decide on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.console import Reply
from flows.errors import BadConfig, BadInput
from flows.pilot_data import SplitBy, gather
from flows.pilot_words import LANGUAGES, Words
from flows.workspace import write_atomically

RESERVE = 4.0
"""Seconds of the time allowed that are kept for the report, at most a fifth."""

Progress = Callable[[float, str], None]


def run_pilot(
    data: Path,
    *,
    label: str | None = None,
    time_column: str | None = None,
    group: str | None = None,
    slices: Sequence[str] = (),
    images: Path | None = None,
    normal: str | None = None,
    regression: bool = False,
    split: SplitBy = "auto",
    seconds: float = 600.0,
    page: Path = Path("pilot.html"),
    language: str = "en",
    cost_miss: float | None = None,
    cost_false_reject: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reply:
    """Compare the ways of training on the file's rows; write the page, its figures as JSON, and the config.

    Columns are taken as `softad init` would take them: what gives the label away is left out.

    Parameters
    ----------
    label, time_column, group, slices: columns whose role a person knows; found otherwise.
    images: zip or folder with the images that a column names; by default one beside the file with its name.
    normal: the class of good parts.
    split: how rows part; "auto" takes groups, else time, else chance, and says why.
    seconds: from now to the report; what is done by then is reported.
    page: where the HTML goes; JSON, config and expectations go beside it.
    cost_miss, cost_false_reject: of one missed defect and one rejected good part, each at least 0.
    progress: called with (share of the time used, what was done).

    Raises
    ------
    BadInput: the file cannot be read, or its rows cannot be compared on (too few, one class only).
    BadConfig: a named column is not there, the label cannot be told, or an option is out of range.
    """
    from softad.tuning import pilot

    started = time.monotonic()
    if language not in LANGUAGES:
        raise BadConfig(f"--language {language!r}: it is one of {', '.join(LANGUAGES)}")
    for option, value in (("--cost-miss", cost_miss), ("--cost-false-reject", cost_false_reject)):
        if value is not None and not 0.0 < value < float("inf"):
            raise BadConfig(f"{option} {value}: a cost is a number above 0")
    if progress is not None:
        progress(0.0, "looking at the file")
    material = gather(
        data, images=images, label=label, time=time_column, group=group, slices=slices, normal=normal,
        regression=regression, split=split,
    )  # fmt: skip
    settings = material.settings
    classes = settings.task.kind == "classification"
    left = max(seconds - min(RESERVE, 0.2 * seconds) - (time.monotonic() - started), 1.0)
    shape: dict[str, Any] = {}
    if material.pictures is not None:
        training = settings.training
        shape = {"model": "cnn", "hidden": training.hidden, "epochs": training.epochs, "patience": training.patience,
                 "batch_size": training.batch_size, "learning_rate": training.learning_rate}  # fmt: skip
    elif len(material.answers) < 600:
        shape = {"hidden": settings.training.hidden}
    try:
        report = pilot(
            material.features, material.answers if classes else material.answers.astype(float), budget_seconds=left,
            task=settings.task.kind, groups=material.groups, order=material.order,
            normal=settings.task.normal if classes else None, random_state=seed, progress=progress, **shape,
        )  # fmt: skip
    except ValueError as error:
        raise BadInput(f"{data.name}: {_plain_words(str(error), settings.data.label)}") from error
    if progress is not None:
        progress(1.0, "writing the report")
    return _write(report, material, Words(language), page, cost_miss, cost_false_reject)


def _write(
    report: Any, material: Any, words: Words, page: Path, cost_miss: float | None, cost_false_reject: float | None
) -> Reply:
    from flows.pilot_document import build_document
    from flows.pilot_page import page_html
    from flows.pilot_verdict import decide, settings_for
    from flows.propose import write

    verdict = decide(report, material)
    page.parent.mkdir(parents=True, exist_ok=True)
    config = page.with_suffix(".yaml")
    write(replace(material.proposal, settings=settings_for(report, material, verdict)), config, force=True)
    document = build_document(
        report, material, verdict, words, cost_miss=cost_miss, cost_false_reject=cost_false_reject,
        config=config.read_text(encoding="utf-8"),
    )  # fmt: skip
    write_atomically(page, page_html(document, report, material, words, path=str(config)))
    write_atomically(page.with_suffix(".json"), json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    lines: list[Any] = [
        f"{material.proposal.data.name}: " + words.say(
            "subtitle", rows=f"{report.rows:,}", rounds=report.rounds, candidates=len(report.candidates),
            minutes=words.say("seconds", n=f"{report.seconds:.0f}"),
        ),
        _table(document, words),
        document["verdict"]["title"],
        *(f"  {text}" for text in document["verdict"]["text"]),
        *(f"  {one['text']}" for one in document["effects"] if verdict.kind != "nothing"),
        *(f"! {one['text']}" for one in document["quality"] if one["level"] != "info"),
        str(page),
        str(config),
    ]  # fmt: skip
    return Reply({**document, "page": str(page), "config_file": str(config)}, lines)


def _table(document: dict[str, Any], words: Words) -> Any:
    """The three figures of plain training and of the one it is compared with, after calibration."""
    from rich.table import Table

    from flows.pilot_words import figure

    three = ("mean", "tail", "stability")
    table = Table(words.say("table.name"), *(words.say(f"short-figure.{key}") for key in three))
    figures = {one["key"]: one for one in document["figures"]}
    for who, name in (("plain", document["candidates"][0]["name"]), ("chosen", document["verdict"]["compared"])):
        cells = []
        for key in three:
            found = figures[key][who]
            ends = "" if found["low"] is None else f" ({figure(found['low'])} – {figure(found['high'])})"
            cells.append(figure(found["value"]) + ends)
        table.add_row(name, *cells)
    return table


def _plain_words(sentence: str, label: str | None) -> str:
    """The library's sentence in the words of the file: y is the label, X the rows."""
    for start, instead in (("y: ", f"the label {label!r}: "), ("X: ", "the rows: "), ("groups: ", "the groups: ")):
        if sentence.startswith(start):
            return instead + sentence.removeprefix(start)
    return sentence
