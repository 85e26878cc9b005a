"""What each column of a file is for, as the config says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flows.errors import BadInput
from flows.readers import FileFormat, missing_columns, nearest
from flows.schemas import STAGED_NAMES, TABLES
from flows.settings import Settings

LABEL_TIMES = ("time", "labelled_at", "labeled_at")
LABEL_PROBABILITIES = ("inclusion_probability", "inclusion probability", "probability")
LABEL_IDS = ("id", "_id")


@dataclass(frozen=True)
class LabelRoles:
    """Columns of a label file; None for those that it does not have."""

    id: str
    label: str
    time: str | None
    inspector: str | None
    probability: str | None


def label_roles(form: FileFormat, settings: Settings, *, asked: bool) -> LabelRoles | None:
    """The columns of a label file, or None for a file of inspections.

    A label file has an id, a label, and nothing but what may stand beside them. A column that the config names for
    inspections makes it a file of these, though it be called `time` or `probability`.

    Parameters
    ----------
    asked: the file lies in the folder for label files, so it has to be one.
    """
    data = settings.data

    def first(*names: str | None) -> str | None:
        return next((name for name in names if name is not None and name in form.columns), None)

    id_column = first(data.id, *LABEL_IDS)
    time = first(*LABEL_TIMES, data.time)
    roles = {
        "label": first(data.label),
        "time": time,
        "inspector": first("inspector"),
        "probability": first(*LABEL_PROBABILITIES),
    }
    if id_column is None or roles["label"] is None:
        return None
    measured = {*data.features, *data.slices, *data.lot_columns, data.group} - {data.id}
    if not asked and measured & set(form.columns):
        return None
    others = set(form.columns) - {id_column, *(name for name in roles.values() if name is not None)}
    if others and not asked:
        return None
    return LabelRoles(id_column, str(roles["label"]), time, roles["inspector"], roles["probability"])


@dataclass(frozen=True)
class Roles:
    """Columns of a file of inspections.

    Attributes
    ----------
    kept: column -> type, in the file's order: what goes into the table as it is.
    trimmed: text columns that lose spaces around their values, because values are compared.
    """

    kept: dict[str, pa.DataType]
    trimmed: frozenset[str]
    one_hot: tuple[str, ...]
    label: str | None


def inspection_roles(
    path: Path, form: FileFormat, settings: Settings, known: Callable[[], pa.Schema] | None = None
) -> Roles:
    """Sort the columns of a file of inspections.

    Parameters
    ----------
    known: asked for the table's columns once the file's are right; one that the table has as a number, and the config
        names no more, stays a number.

    Raises
    ------
    BadInput: a column that the config names is missing, the file has labels only, or a column has a name that the
        system needs.
    """
    data = settings.data
    _refuse_labels(path, form, settings)
    named = [data.id, data.time, *data.features, *data.slices, data.group, *data.lot_columns]
    one_hot = tuple(data.label_columns) if set(data.label_columns) & set(form.columns) else ()
    missing_columns(path, form, [*(name for name in named if name is not None), *one_hot])
    reserved = {name.lower() for name in (*TABLES["inspections"].names, *STAGED_NAMES)}
    clash = next((name for name in form.columns if name.lower() in reserved), None)
    if clash is not None:
        raise BadInput(
            f"{path.name}, row 1 (header): {clash!r} is a name that the system uses itself; rename the column"
        )
    label = data.label if data.label in form.columns and not one_hot else None
    left_out = {*one_hot, *([label] if label else [])}
    before = {field.name for field in (known() if known else ()) if pa.types.is_floating(field.type)}
    numeric = set(data.numeric) | (before - {name for name in named if name is not None})
    kept = {name: pa.float64() if name in numeric else pa.string() for name in form.columns if name not in left_out}
    compared = {*data.categorical, *data.slices, *data.lot_columns, *([data.group] if data.group else [])}
    return Roles(kept, frozenset(compared), one_hot, label)


def _refuse_labels(path: Path, form: FileFormat, settings: Settings) -> None:
    """A file of labels with columns that we do not know is told by its folder only."""
    data, labels = settings.data, label_roles(form, settings, asked=True)
    if labels is None or set(data.features) & set(form.columns):
        return
    if any(nearest(name, set(form.columns) - {labels.id, labels.label}) for name in data.features):
        return  # renamed by the export, as it seems
    lacking = ", ".join(map(repr, data.features[:4])) + (" and more" if len(data.features) > 4 else "")
    raise BadInput(
        f"{path.name}, row 1 (header): an id ({labels.id!r}) and a label ({labels.label!r}), but none of the features; "
        f"a file of labels with other columns beside them belongs into {settings.ingest.inbox / 'labels'} of the "
        f"workspace, a file of inspections needs {lacking} too"
    )
