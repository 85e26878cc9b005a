"""Lives: from a promotion (or a person's word) to an alarm or the last window of the alarm budget.

A life has one champion version, one reference (losses of rows that the champion never saw) and one budget. While its
reference is still short of rows, the windows that close go to the reference and are not judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from flows import ledger
from flows.disk import damaged
from flows.store import Store
from flows.units import chances


@dataclass(frozen=True)
class Life:
    """One life of the scan.

    Attributes
    ----------
    name: unique per model, "life-0001" and so on.
    model_version: the champion that is watched.
    started_at: when it began.
    after_seq: rows that arrived later (a greater `_seq`) are judged; the others trained the model or are its reference.
    scan: state of the scan at the start; None while the reference is being gathered.
    reason: why it began ("promotion", "repaired", …).
    """

    name: str
    model_version: str
    started_at: datetime
    after_seq: int
    scan: dict[str, Any] | None
    reason: str


def current_life(store: Store) -> Life | None:
    """The life that began last, or None before the first promotion."""
    names = store.read("lives", columns=["life"])["life"]
    if names.empty:
        return None
    return life_named(store, max(names, key=lambda name: int(name.removeprefix("life-"))))


def life_named(store: Store, name: str) -> Life:
    """One life by its name, which is in the table."""
    newest = store.read("lives", where=f"life = '{name}'")
    # A life that had to gather its reference has a second record, with the scan that then began.
    newest["_has_scan"] = newest["scan"].notna()
    row = newest.sort_values("_has_scan").iloc[-1]
    details = json.loads(row["scan"]) if isinstance(row["scan"], str) else None
    return Life(
        name=str(row["life"]),
        model_version=str(row["model_version"]),
        started_at=row["started_at"].to_pydatetime(),
        after_seq=int(row["after_seq"]),
        scan=details,
        reason=str(row["reason"]),
    )


def begin_life(
    store: Store,
    *,
    model_version: str,
    reference: pd.DataFrame,
    after_seq: int,
    min_reference_rows: int,
    scan_options: Mapping[str, Any],
    reason: str,
    cause: str,
    actor: str,
    now: datetime,
) -> Life:
    """Begin a new life, once per `cause`.

    Parameters
    ----------
    reference: columns `_id`, `loss`, `window`, and those of `flows.units.with_units`; rows that the model was not
        fitted, tuned or calibrated on.
    scan_options: arguments of `monitoring.scan.ConcentrationScan`.
    cause: what made it begin (a promotion's key, an incident's key); the same cause again returns the same life.
    """
    frame = store.read("lives")
    known = frame[frame["cause"] == cause]
    name = f"life-{frame['life'].nunique() + 1:04d}" if known.empty else str(known["life"].iloc[0])
    store.append("references", reference.assign(life=name)[["life", "_id", "loss", "window"]], key=f"reference:{name}")
    scan = None
    if not is_short(reference, scan_options, min_reference_rows):
        scan = first_scan(reference, scan_options)
    record = {
        "life": name,
        "model_version": model_version,
        "started_at": now,
        "after_seq": after_seq,
        "scan": json.dumps(scan) if scan is not None else None,
        "reason": reason,
        "cause": cause,
    }
    # The ledger first: a life that is in the tables is not begun again, so what comes after it could be lost.
    ledger.enter(
        store,
        key=f"life:{name}",
        actor=actor,
        action="life.started",
        subject=name,
        details={"model_version": model_version, "reason": reason, "reference_rows": len(reference), "cause": cause},
        at=now,
    )
    store.append("lives", pd.DataFrame([record]), key=f"life:{name}")
    return Life(name, model_version, now, after_seq, scan, reason)


def extend_reference(
    store: Store,
    life: Life,
    rows: pd.DataFrame,
    *,
    window: str,
    min_reference_rows: int,
    scan_options: Mapping[str, Any],
    now: datetime,
    units: Callable[[pd.DataFrame], pd.DataFrame] = lambda reference: reference,
) -> Life:
    """Add a window's rows (`_id`, `loss`) to a reference that is still short, and begin the scan once it is not.

    Parameters
    ----------
    units: adds to the whole reference what `flows.units.with_units` does.
    """
    store.append(
        "references",
        rows.assign(life=life.name, window=window)[["life", "_id", "loss", "window"]],
        key=f"reference:{life.name}:{window}",
    )
    reference = units(reference_of(store, life))
    if is_short(reference, scan_options, min_reference_rows):
        return life
    scan = first_scan(reference, scan_options)
    record = {
        "life": life.name,
        "model_version": life.model_version,
        "started_at": now,
        "after_seq": life.after_seq,
        "scan": json.dumps(scan),
        "reason": life.reason,
        "cause": f"{life.name}:reference",
    }
    store.append("lives", pd.DataFrame([record]), key=f"life:{life.name}:reference")
    return Life(life.name, life.model_version, now, life.after_seq, scan, life.reason)


def reference_of(store: Store, life: Life) -> pd.DataFrame:
    """The reference of a life: `_id`, `loss`, `window`, in a fixed order.

    Raises
    ------
    Damaged: it is gone, though a scan began on it.
    """
    frame = store.read("references", where=f"life = '{life.name}'")
    if frame.empty and life.scan is not None:
        raise damaged("table references", f"it has no rows of {life.name}, whose scan began on some")
    return frame[["_id", "loss", "window"]].sort_values("_id", ignore_index=True)


def is_short(reference: pd.DataFrame, options: Mapping[str, Any], least: int) -> bool:
    """Whether a reference cannot begin a scan yet.

    At each label age it needs `least` rows, 200 of them chosen evenly for their label, whose losses differ; and where
    lots are ranked, enough of them.
    """
    from monitoring.lots import LEAST_LOTS
    from monitoring.sample import evenly
    from monitoring.scan_reference import LEAST_ROWS

    for age in options.get("label_age") or [None]:
        part = reference if age is None else reference[reference["_age"] <= age]
        if len(part) < least:
            return True
        probabilities = chances(part)
        if probabilities is not None and not np.isnan(probabilities).any():
            kept, _ = evenly(part["_id"].to_numpy(), probabilities, where="reference", seed=options.get("seed", 0))
            part = part[kept]
        if len(part) < LEAST_ROWS or part["loss"].nunique() < 2:
            return True
        if "_lot" in part and part["_lot"].nunique() < LEAST_LOTS:
            return True
    return False


def reference_before(store: Store, version: str) -> pd.DataFrame | None:
    """The reference of the last life in which this version was the champion; None where it never was."""
    frame = store.read("lives", where="model_version = '" + version.replace("'", "''") + "'")
    if frame.empty:
        return None
    last = max(frame["life"], key=lambda name: int(str(name).removeprefix("life-")))
    found = store.read("references", where=f"life = '{last}'")
    return found[["_id", "loss", "window"]].sort_values("_id", ignore_index=True) if len(found) else None


def first_scan(reference: pd.DataFrame, options: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a new scan on a reference."""
    from monitoring.scan import ConcentrationScan

    scan = ConcentrationScan(**options)
    # What the reference's own windows show of ordinary weeks, the scan need not learn from the windows to come.
    weeks = reference["window"].to_numpy() if reference["window"].notna().all() else None
    scan.fit(
        reference["loss"].to_numpy(), ids=reference["_id"].to_numpy(), weeks=weeks,
        lots=reference["_lot"].to_numpy() if "_lot" in reference else None,
        ages=reference["_age"].to_numpy() if options.get("label_age") else None,
        probabilities=chances(reference),
    )  # fmt: skip
    return scan.to_dict()
