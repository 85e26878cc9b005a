"""Labels of a class that was not in the config: they wait in quarantine until a person adds the class."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from flows.settings import Settings
from flows.store import Store, current_labels


def release_waiting(name: str, settings: Settings, store: Store) -> int:
    """Take in the quarantined labels that read `name`, where no newer label came meanwhile; returns how many.

    The quarantine keeps its rows as the history of what was delivered.
    Doing it again adds nothing.
    """
    held = store.read("quarantine", where="kind = 'labels' AND state = 'held'", order='"at", _file, _row')
    waiting = [row for row in held.to_dict("records") if waits_for(json.loads(row["reasons"]), name, settings)]
    if not waiting:
        return 0
    known = current_labels(store, columns=["_id", "_version"]).set_index("_id")["_version"].to_dict()
    last = {str(row["_id"]): row for row in waiting}
    labels = pd.DataFrame(
        [
            {
                "_id": key, "label": name, "label_value": None, "_time": row["at"], "inspector": None,
                "probability": None, "_version": int(known.get(key, 0)) + 1, "_file": row["_file"],
                "_row": int(row["_row"]),
            }
            for key, row in last.items()
            if key not in known
        ]
    )  # fmt: skip
    if labels.empty:
        return 0
    labels["_version"] = labels["_version"].astype("int32")
    return len(labels) if store.append("labels", labels, key=f"class:{name}") else 0


def waits_for(reasons: list[dict[str, Any]], name: str, settings: Settings) -> bool:
    """Whether a label was held only because its class was unknown, and it is this class."""
    return bool(reasons) and all(
        item["column"] == settings.data.label and str(item["value"]).strip() == name for item in reasons
    )
