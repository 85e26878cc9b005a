"""The proposed config and expectations as YAML with comments, for a person to edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.settings import Settings
from flows.suite import Expectation

_WIDTH = 116

_COMMENTS = {
    "data.id": "names a row: the same id with other content is a correction; null: a row is known by its content",
    "data.time": "when the part was inspected; null: rows are taken in order of arrival",
    "data.label": "what is decided about a part",
    "data.label_columns": "exactly one of these is 1 in a row; its name becomes the label",
    "data.numeric": "features that are measured",
    "data.categorical": "features with a few values; one never seen before is marked, not refused",
    "data.image": "the column that names the picture",
    "data.images": "zip or folder with the pictures; a relative path starts at this file's folder",
    "data.image_size": "pixels a side, as the model sees it",
    "data.slices": "columns by which trouble is located (machine, line, product, …)",
    "data.group": "rows that share it never part between training and holdout",
    "data.time_zone": "of times that say none, of the calendar and of the schedule",
    "data.date_order": "what 03/04/2026 means: dmy (3 April) or mdy (4 March)",
    "data.window": "what is judged at once: {period: day, week or month}, or {rows: N}",
    "data.left_out": "kept and not used, with the reason; to use one, move it to numeric or categorical",
    "task.kind": "classification or regression",
    "task.classes": "a label that is not listed is held in quarantine until it is added: softad config add-class NAME",
    "task.normal": "the class of good parts; all others are defects",
    "task.tolerance": "an error above it is a miss",
    "ingest.inbox": "folder that is looked at; a model shares it with no other; relative to the workspace",
    "ingest.outbox": "where predictions and alerts go; a model shares it with no other",
    "ingest.expectations": "rules that each row must fulfil, beside this file",
    "training.model": "linear, mlp, cnn, or your own: package.module:factory",
    "training.min_rows": "no training with fewer labelled rows",
    "training.split": "held-out rows: by stratified (at random within each class), group or time",
    "monitoring.alarm_budget": "chance of any false alarm over `windows` windows",
    "monitoring.label_age_days": "a window is judged when its labels have had so long to come in",
    "monitoring.label_selection": "how parts are chosen for a label: all, probability (in the label file), or unknown",
    "data.lot": "columns that together name a lot, where parts are alike within lots",
    "promotion.min_holdout_rows": "no promotion judged on fewer rows",
}

_ALWAYS = {
    "data": ("id", "time", "label", "slices", "window"),
    "task": ("kind",),
    "training": ("model",),
    "monitoring": ("alarm_budget", "windows", "label_age_days"),
}
"""Keys that are written even where they have their default, because a person will look for them."""

_FINDINGS = {
    "data.label": "label",
    "ingest.inbox": "inbox",
    "data.id": "id",
    "data.time": "time",
    "data.group": "group",
    "data.window": "window",
    "data.time_zone": "time zone",
}
"""Key -> topic of the sentence that stands above it."""


def suite_name(config: Path) -> str:
    """Name of the file with the expectations of a config.

    >>> suite_name(Path("workspace/config.yaml")), suite_name(Path("line-a.yaml"))
    ('expectations.yaml', 'line-a.expectations.yaml')
    """
    return "expectations.yaml" if config.stem == "config" else f"{config.stem}.expectations.yaml"


def config_text(
    settings: Settings, keep_hints: Mapping[str, str], findings: Mapping[str, str], data: Path, config: Path
) -> str:
    """The config, each part with what was found and what may stand there.

    Parameters
    ----------
    keep_hints: column that was left out -> command that keeps it.
    findings: topic -> sentence.
    data, config: the file that was looked at, and the file that will hold the text.
    """
    document = settings.model_dump(mode="json")
    sparse = settings.model_dump(mode="json", exclude_defaults=True)
    document["ingest"]["expectations"] = suite_name(config)
    sparse.setdefault("ingest", {})["expectations"] = suite_name(config)
    if settings.data.images is not None:
        document["data"]["images"] = sparse["data"]["images"] = _near(settings.data.images, config)
    lines = [
        f"# What softad found in {data.name}: a proposal, to be looked at and changed by a person.",
        "# A key that is not here has its default; configs/default.yaml lists them all.",
        _entry("name", document["name"], 0),
    ]
    for section in ("data", "task", "ingest", "training", "monitoring", "promotion"):
        chosen = [key for key in document[section] if key in sparse.get(section, {}) or key in _ALWAYS.get(section, ())]
        if not chosen:
            continue
        lines += ["", f"{section}:"]
        for key in chosen:
            path = f"{section}.{key}"
            lines += _comments(_COMMENTS.get(path, ""))
            topic = _FINDINGS.get(path, "")
            lines += _comments(findings.get(topic, "").removeprefix(f"{topic}: "), "found: ")
            if path == "data.left_out":
                lines += _left_out(document[section][key], keep_hints)
            else:
                value = document[section][key]
                nested = sparse.get(section, {}).get(key) if isinstance(value, dict) else None
                lines.append(_entry(key, nested if nested is not None else value, 1))
    return "\n".join(lines) + "\n"


def suite_text(suite: Sequence[Expectation], settings: Settings, data: Path) -> str:
    """The expectations, one to a block."""
    lines = [
        f"# Rules of Great Expectations for files like {data.name}, which passes them; tighten what you know better.",
        "# A row that fails a critical rule is held in quarantine with rule, column and value; with severity: warning",
        "# it is taken in and mentioned. Letters in a number column and unknown labels are held without any rule.",
        "# A range left open needs only min_value or only max_value. To allow certain values only:",
        "#   - type: expect_column_values_to_be_in_set",
        f"#     kwargs: {{column: {_scalar((settings.data.categorical or ['machine'])[0])}, value_set: [A, B, C]}}",
        "#     meta: {rule: a name of your own}",
        "#     severity: critical",
        "expectations:",
    ]
    for rule in suite:
        text = yaml.safe_dump([rule], sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=None)
        lines += [f"  {line}" for line in text.rstrip().split("\n")]
    return "\n".join(lines) + "\n"


def _near(images: Path, config: Path) -> str:
    """A path below the config's folder is kept relative, so that the folder can be moved as a whole."""
    images, folder = images.resolve(), config.resolve().parent
    return str(images.relative_to(folder)) if images.is_relative_to(folder) else str(images)


def _left_out(reasons: Mapping[str, str], keep_hints: Mapping[str, str]) -> list[str]:
    lines = ["  left_out:"]
    for name, reason in reasons.items():
        lines.append(_entry(name, reason, 2))
        if name in keep_hints:
            lines.append(f"    # to keep it: {_one_line(keep_hints[name])}")
    return lines


def _comments(text: str, start: str = "") -> list[str]:
    if not text:
        return []
    words, lines, line = _one_line(start + text).split(" "), [], "  #"
    for word in words:
        if len(line) + len(word) + 1 > _WIDTH and line != "  #":
            lines.append(line)
            line = "  #"
        line += f" {word}"
    return [*lines, line]


def _one_line(text: str) -> str:
    # A line break in a column's name would end the comment and begin a key.
    return " ".join(text.split())


def _entry(key: str, value: Any, depth: int) -> str:
    indent = "  " * depth
    if not isinstance(value, (list, dict)) or not value or len(str(value)) < 90:
        return f"{indent}{_scalar(key)}: {_scalar(value)}"
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False)
    return "\n".join(indent + line for line in text.rstrip().split("\n"))


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
