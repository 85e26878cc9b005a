"""What came in: rows read, accepted, in quarantine and why, and labels that are waited for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from flows.context import Context
from flows.dataset import window_of
from flows.errors import BadConfig
from flows.lives import current_life
from flows.rules import load_suite, plan
from flows.store import current_rows
from monitoring.input_warnings import InputWarnings, count_warnings
from monitoring.page_data import Reason, Received

REASONS = 12
"""So many reasons are on the page, those of most rows."""

_KINDS = {
    "expect_column_values_to_not_be_null": "filled",
    "expect_column_values_to_be_between": "range",
    "expect_column_values_to_be_in_set": "set",
    "expect_column_values_to_be_unique": "unique",
}
"""Rules that the page has words for; of another, its name is shown."""


def received(context: Context, *, now: datetime) -> Received:
    """What came in so far, and why rows are in quarantine."""
    store = context.store
    files = store.read(
        "files", columns=["name", "status", "read", "accepted", "quarantined", "duplicates"], where="kind IS NOT NULL"
    )
    taken = files[files["status"] == "accepted"]
    waiting = store.sql(
        "SELECT count(*) AS n FROM (SELECT DISTINCT _id FROM inspections) i WHERE NOT EXISTS "
        "(SELECT 1 FROM labels l WHERE l._id = i._id)"
    )["n"].iloc[0]
    orphans = store.sql(
        "SELECT count(*) AS n FROM (SELECT DISTINCT _id FROM labels) l WHERE NOT EXISTS "
        "(SELECT 1 FROM inspections i WHERE i._id = l._id)"
    )["n"].iloc[0]
    return Received(
        files=len(taken),
        read=int(taken["read"].sum()),
        accepted=int(taken["accepted"].sum()),
        quarantined=int(taken["quarantined"].sum()),
        duplicates=int(taken["duplicates"].sum()),
        awaiting_labels=int(waiting),
        held_back=files.loc[files["status"] == "refused", "name"].tolist(),
        reasons=_reasons(context),
        labels_without_row=int(orphans),
        ahead=store.count("inspections", where=f"_time > TIMESTAMPTZ '{now.isoformat()}' + INTERVAL 1 DAY"),
        late=_late(context),
    )


def input_warnings(context: Context, version: str | None) -> InputWarnings:
    """What was unusual about the rows that a model version has scored, column by column."""
    if version is None:
        return InputWarnings()
    mine = "model_version = '" + version.replace("'", "''") + "'"
    frame = context.store.sql(
        f"SELECT coalesce(warnings, '') AS warnings, count(*) AS n FROM predictions WHERE {mine} GROUP BY 1"  # noqa: S608
    )
    data = context.settings.data
    texts = [(str(text), int(count)) for text, count in zip(frame["warnings"], frame["n"], strict=True)]
    return count_warnings(texts, [*data.numeric, *data.categorical], rows=int(frame["n"].sum()))


def _reasons(context: Context) -> list[Reason]:
    """Why rows are in quarantine, most rows first; a row with two reasons counts for both."""
    kinds = _kinds(context)
    rows: Counter[tuple[str, str]] = Counter()
    for text in context.store.read("quarantine", columns=["reasons"])["reasons"]:
        rows.update({(str(one.get("rule")), str(one.get("column") or "")) for one in json.loads(text)})
    return [Reason(kinds.get(rule, rule), column, number, rule) for (rule, column), number in rows.most_common(REASONS)]


def _kinds(context: Context) -> Mapping[str, str]:
    """The rules of the plant's expectations that the page has words for: name -> kind."""
    path = context.settings.ingest.expectations
    if path is None:
        return {}
    try:
        rules = plan(load_suite(context.settings.beside_config(path)))
    except BadConfig:
        # The next file that comes in says what is wrong with it; until then the rules go by their names.
        return {}
    return {rule.name: _KINDS[rule.type] for rule in rules if rule.type in _KINDS}


def _late(context: Context) -> int:
    """Rows that came for a window after it had been judged."""
    life = current_life(context.store)
    if life is None or context.settings.data.window.rows is not None:
        return 0
    windows = context.store.read("windows", columns=["window", "state", "at"], where=f"life = '{life.name}'")
    judged = windows[windows["state"] != "too_few_labels"].groupby("window")["at"].max()
    rows = current_rows(context.store, columns=["_time", "_at"], where=f"_seq > {life.after_seq}")
    if judged.empty or rows.empty:
        return 0
    return int((rows["_at"] > window_of(rows, context.settings).map(judged)).sum())
