"""`softad init`: look at a file that nobody prepared, and propose a configuration that a person then edits.

Each decision comes with a sentence that says what was found, so that a wrong one is seen and not only made.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from flows.apart import models_in, name_in, own_folders
from flows.columns import Column, look
from flows.errors import BadConfig, BadInput
from flows.leaks import Leak, find_leaks
from flows.proposal_images import list_images, usual_size
from flows.proposal_label import Label, decide_task, find_column, find_label
from flows.proposal_notes import Note, feature_notes, label_notes, part_sentence, row_notes, split_notes
from flows.proposal_roles import (
    Features,
    find_group,
    find_id,
    find_image,
    find_slices,
    find_time,
    names_images,
    sort_features,
    why_not,
)
from flows.proposal_sample import Extremes, find_extremes, take_sample
from flows.proposal_sizes import (
    Size,
    choose_monitoring,
    choose_promotion,
    choose_training,
    choose_window,
    choose_zone,
    model_name,
)
from flows.proposal_text import config_text, suite_name, suite_text
from flows.roles import inspection_roles
from flows.settings import NAME, NAME_SAID, Settings, Task, explain
from flows.suite import Expectation, build_suite
from flows.targets import writable_file
from flows.workspace import write_atomically

__all__ = ["Leak", "Note", "Proposal", "beside_others", "describe", "propose", "to_json", "write"]

_NO_ENVIRONMENT = "SOFTAD_INIT_READS_NO_VARIABLE__"


@dataclass(frozen=True)
class Proposal:
    """What `init` found and decided.

    Attributes
    ----------
    settings: the whole configuration.
    suite: expectations that today's file fulfils.
    notes: what was found, what was decided, what to look at.
    leaks: columns that give the label away; left out unless they were to be kept.
    data: the file as it was named.
    rows: rows of the file.
    columns: the columns as they were found, of the rows that were looked at.
    label: the label of these rows as text, "" where it is not known yet.
    parting: measurements that tell one class of several from all else; they are kept, and named.
    """

    settings: Settings
    suite: list[Expectation]
    notes: list[Note]
    leaks: list[Leak]
    data: Path
    rows: int
    columns: list[Column]
    label: np.ndarray
    parting: list[Leak] = field(default_factory=list)


def propose(
    data: Path,
    *,
    images: Path | None = None,
    label: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    keep: Sequence[str] = (),
    regression: bool = False,
    name: str | None = None,
    also: Sequence[str] = (),
) -> Proposal:
    """Look at a CSV or Parquet file and propose a configuration.

    Parameters
    ----------
    data: the file, in any encoding and with any separator that `ingest` reads.
    images: zip or folder with the images that a column of `data` names.
    label, id, time, group: columns whose role a person knows; `label` may be several 0/1 columns, with commas between.
    keep: columns to be used as features in spite of what was found.
    regression: the label is a number to be predicted, even where it has few values.
    name: of the model; by default the file's.
    also: further words of the command line (such as --workspace DIR), repeated in the command that keeps a column.

    Raises
    ------
    BadInput: the file cannot be read, has no rows, or nothing in it can be a feature.
    BadConfig: the model cannot be called so, a named column is not there, or the label cannot be told; the sentence
        lists the candidates.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "parts.csv")
    ...     rows = [f"P{n},{n * 7 % 13 / 10},{'NG' if n % 9 == 0 else 'OK'}" for n in range(90)]
    ...     _ = file.write_text("part_id,torque,result\\n" + "\\n".join(rows))
    ...     found = propose(file)
    >>> found.settings.data.label, found.settings.data.id, found.settings.data.numeric, found.settings.task.normal
    ('result', 'part_id', ['torque'], 'OK')
    """
    shown = data.name
    if name is not None and re.fullmatch(NAME, name) is None:
        raise BadConfig(f"--name {name!r}: it names folders and the model in the registry; write {NAME_SAID}")
    sample = take_sample(data)
    columns = look(sample.frame, time=time)
    _check_header(columns, shown)
    for wanted in keep:
        find_column(columns, wanted, option="--keep", data=shown)
    picture, notes = _picture(columns, images, shown)
    target = find_label([column for column in columns if column is not picture], label, data=shown)
    label_names = set(target.columns) or {target.name}
    if label_names & set(keep):
        raise BadConfig(f"{shown}: {min(label_names & set(keep))!r} is the label and cannot be kept as a feature too")
    task = decide_task(target, kind="regression" if regression else None, data=shown)
    rest = [column for column in columns if column.name not in label_names]
    when = find_time(rest, time, data=shown)
    who = find_id(rest, id, image=picture.name if picture else None, data=shown)
    taken = {name for name in (who.column, when.column, picture.name if picture else None) if name is not None}
    whole = find_group(rest, group, taken=taken, images=picture is not None, data=shown)
    taken |= {whole.column} if whole.column is not None else set()
    taken -= set(keep) - {picture.name if picture else ""}

    possible = [column for column in rest if column.name not in taken]
    leaks = find_leaks(possible, target.rows, regression=task.kind == "regression", normal=task.normal)
    parting, leaks = [one for one in leaks if one.rule == "part"], [one for one in leaks if one.rule != "part"]
    hint = _Hint(data, images, label, id, time, group, tuple(keep), regression, name, tuple(also))
    leaks = [replace(leak, keep_hint=hint.keeping(leak.column)) for leak in leaks]
    features, spared = _features(possible, leaks, keep, picture, shown)
    guilty = {leak.column for leak in leaks} - set(keep) - spared
    slices = find_slices(
        [column for column in rest if column.name not in guilty | (taken - {whole.column or ""})],
        features, group=whole.column, image=picture is not None,
    )  # fmt: skip

    others = [who.column, when.column, picture.name if picture else None, *features.categorical]
    extremes = find_extremes(
        data, sample, columns, numeric=features.numeric, other=[n for n in others if n],
        label=None if target.columns else target.name, id=who.column,
    )  # fmt: skip
    task = _all_classes(task, target, extremes)
    known = int(np.sum(target.rows != "") / len(target.rows) * sample.rows)
    size = Size(sample.rows, known, len(features.numeric) + len(features.categorical), picture is not None)
    window = choose_window(size, next((c for c in columns if c.name == when.column), None))
    zone = choose_zone(columns, when.column)
    document: dict[str, Any] = {
        "name": name or model_name(data),
        "data": {
            "id": who.column,
            "time": when.column,
            "label": target.name,
            "label_columns": list(target.columns),
            "numeric": features.numeric,
            "categorical": features.categorical,
            "image": picture.name if picture else None,
            "images": images.absolute() if picture and images else None,
            "image_size": usual_size(images) if picture and images else 32,
            "slices": slices,
            "group": whole.column,
            "time_zone": zone.name,
            "date_order": next((c.date_order for c in columns if c.name == when.column), "ymd"),
            "window": window.setting,
            "left_out": features.left_out,
        },
        "task": task.model_dump(),
        "ingest": {"expectations": Path("expectations.yaml")},
        "training": choose_training(size, by_group=whole.column is not None),
        "monitoring": choose_monitoring(size, window.setting),
        "promotion": choose_promotion(size),
    }
    settings = _checked(document, shown)
    inspection_roles(data, sample.form, settings)  # what `ingest` would refuse the file for
    ranges = {name: (extremes.low[name], extremes.high[name]) for name in features.numeric if name in extremes.low}
    filled = [replace(column, missing=extremes.missing.get(column.name, column.missing)) for column in columns]
    suite = build_suite(filled, settings.data, ranges)
    notes = [
        *label_notes(target, task, known, sample),
        *notes,
        Note("id", who.sentence),
        Note("time", when.sentence),
        *zone.notes(when.column),
        *([Note("group", whole.sentence)] if whole.sentence else []),
        Note("window", window.sentence),
        *split_notes(settings, target),
        *feature_notes(settings, leaks, keep, spared),
        *(Note("part", part_sentence(one)) for one in parting if one.column in settings.data.features),
        *row_notes(columns, settings, sample, extremes),
        Note(
            "expectations",
            f"{len(suite)} expectations, wide enough that today's file passes; tighten what you know better.",
        ),
    ]
    return Proposal(settings, suite, notes, leaks, data, sample.rows, columns, target.rows, parting)


def describe(proposal: Proposal) -> list[str]:
    """The proposal as lines for people."""
    return [f"{proposal.data.name}: {proposal.rows:,} rows.", *(note.text for note in proposal.notes)]


def to_json(proposal: Proposal) -> dict[str, Any]:
    """The proposal as a document for programs; all of it plain text, numbers, lists and dicts."""
    return {
        "data": str(proposal.data),
        "rows": proposal.rows,
        "settings": proposal.settings.model_dump(mode="json"),
        "leaks": [
            {"column": leak.column, "reason": leak.reason, "keep": leak.keep_hint, "rule": leak.rule}
            for leak in proposal.leaks
        ],
        "notes": [{"topic": note.topic, "text": note.text} for note in proposal.notes],
        "expectations": proposal.suite,
    }


def write(proposal: Proposal, config_path: Path, *, force: bool = False) -> Path:
    """Write the config, and the expectations beside it; each file appears whole or not at all.

    Raises
    ------
    BadConfig: there is a config already, and `force` is false; or something else stands in its place.
    """
    beside = config_path.parent / suite_name(config_path)
    for path in (config_path, beside):
        writable_file(path, "with --config")
        if path.exists() and not force:
            raise BadConfig(f"{path} is there already; add --force to replace it, or name another config with --config")
    # The config goes last: where it stands, what it names stands too.
    write_atomically(beside, suite_text(proposal.suite, proposal.settings, proposal.data))
    hints = {leak.column: leak.keep_hint for leak in proposal.leaks}
    text = config_text(
        proposal.settings, hints, {note.topic: note.text for note in proposal.notes}, proposal.data, config_path
    )
    write_atomically(config_path, text)
    return config_path


def beside_others(
    proposal: Proposal, workspace: Path, config: Path, *, named: bool = False, force: bool = False
) -> Proposal:
    """The proposal with a name, an inbox and an outbox of its own, where the workspace has another model.

    Parameters
    ----------
    config: the file that will be written; the model that it names now is this one.
    named: a person gave the name, so no other is chosen.
    force: this is the model of that name which the workspace has already.

    Raises
    ------
    BadConfig: the workspace has a model of the name that was given.
    """
    name, taken = proposal.settings.name, models_in(workspace) - {name_in(config)}
    notes = list(proposal.notes)
    if name in taken and not force:
        if named:
            raise BadConfig(
                f"{workspace} has a model {name!r} already, and {config} is not its config: name this one otherwise "
                "with --name, or add --force to go on with that model's tables"
            )
        own = next(other for number in count(2) if (other := f"{name}-{number}") not in taken)
        notes.append(Note("name", f"name: {own!r}, since the workspace has a model {name!r} already; --name chooses."))
        name = own
    folders = own_folders(name, workspace, config)
    if folders:
        where = workspace / folders["inbox"]
        notes.append(Note("inbox", f"inbox: {where}, since the workspace has another model already."))
    ingest = proposal.settings.ingest.model_copy(update=folders)
    return replace(
        proposal, settings=proposal.settings.model_copy(update={"name": name, "ingest": ingest}), notes=notes
    )


@dataclass(frozen=True)
class _Hint:
    """The command line that was given, to be repeated with one more column kept."""

    data: Path
    images: Path | None
    label: str | None
    id: str | None
    time: str | None
    group: str | None
    keep: tuple[str, ...]
    regression: bool
    name: str | None
    also: tuple[str, ...]

    def keeping(self, column: str) -> str:
        words = ["softad", "init", str(self.data)]
        for option in ("images", "label", "id", "time", "group", "name"):
            value = getattr(self, option)
            words += [f"--{option}", str(value)] if value is not None else []
        words += ["--regression"] if self.regression else []
        for name in dict.fromkeys([*self.keep, column]):
            words += ["--keep", name]
        return shlex.join([*words, *self.also, "--force"])


def _check_header(columns: Sequence[Column], data: str) -> None:
    names = [column.name for column in columns]
    if len(names) < 2:
        raise BadInput(
            f"{data}, row 1 (header): one column only, {names[0]!r}; a label and a feature are needed, "
            "separated by comma, semicolon or tab"
        )
    if all(_is_number(name) for name in names) and names != [str(int(float(name))) for name in names]:
        raise BadInput(
            f"{data}, row 1: this is no header, all its cells are numbers; put the column names in the first row"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _picture(columns: Sequence[Column], images: Path | None, data: str) -> tuple[Column | None, list[Note]]:
    if images is None:
        named = next((column.name for column in columns if names_images(column)), None)
        text = f"images: {named!r} names image files; add --images ZIP to train on the pictures."
        return None, [Note("images", text)] if named else []
    names = list_images(images)
    column, missing = find_image(columns, names)
    if column is None:
        raise BadInput(
            f"{data}: no column names the images of {images.name} (one of its {len(names):,} files is {names[0]!r}); "
            "add a column that does, or give another archive with --images"
        )
    gaps = f"; {missing:,} rows name an image that is not in it, and will be held in quarantine" if missing else ""
    return column, [Note("images", f"images: {column.name!r} names the pictures in {images.name}{gaps}.")]


def _features(
    possible: Sequence[Column], leaks: Sequence[Leak], keep: Sequence[str], picture: Column | None, data: str
) -> tuple[Features, set[str]]:
    """Sort the features; where every one of them would go as a leak, the least suspicious stays."""
    for column in possible:
        if column.name in keep and column.kind in ("empty", "constant"):
            raise BadConfig(f"{data}: {column.name!r} cannot be kept as a feature, it is {why_not(column)}")
    taken = {picture.name} if picture else set()
    barred = {leak.column: leak.reason for leak in leaks}
    found = sort_features(possible, taken=taken, barred=barred, keep=keep, image=picture is not None)
    if found.numeric or found.categorical or picture:
        return found, set()
    usable = {column.name for column in possible if not why_not(column)}
    suspects = [leak for leak in leaks if leak.column in usable]
    if not suspects:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(found.left_out.items())[:6])
        raise BadInput(
            f"{data}: no column can be a feature ({reasons or 'there is none besides the label'}); add measurements"
        )
    spared = min(suspects, key=lambda leak: leak.strength).column
    return sort_features(possible, taken=taken, barred=barred, keep=[*keep, spared], image=False), {spared}


def _all_classes(task: Task, target: Label, extremes: Extremes) -> Task:
    """A rare class may be in none of the rows that were looked at closely."""
    more = extremes.labels - set(task.classes)
    if task.kind == "regression" or target.columns or not more:
        return task
    return task.model_copy(update={"classes": [*task.classes, *sorted(more)]})


def _checked(document: dict[str, Any], data: str) -> Settings:
    try:
        # What is written must not depend on the environment in which init ran.
        return Settings(_env_prefix=_NO_ENVIRONMENT, **document)  # type: ignore[call-arg]
    except ValidationError as error:
        raise BadConfig(f"{data}: {explain(error)}") from error
