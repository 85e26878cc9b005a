"""The gates' answer to one challenger: on which held-out rows it was judged, by what, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from flows.comparison import Gate, Margins
from flows.cost_gates import cost_gates
from flows.gates import beats_constant, judge
from flows.holdout import compare, constant_losses, held_out_rows, independent_groups
from flows.images import images_of
from flows.ledger import Entry
from flows.promotions import DECIDED
from flows.settings import Settings
from flows.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from flows.store import Store
    from flows.tracking import Tracker
    from flows.trainings import Training


@dataclass(frozen=True)
class Decision:
    """The gates' answer to one challenger.

    Attributes
    ----------
    promoted: whether it is the champion now.
    version, champion: the challenger, and the champion that it met; None where there was none.
    gates: every gate with figure, interval and verdict.
    first: whether it was judged as a first champion, against the constant predictor.
    reasons: in words; why it was refused, or what was found.
    rows: held-out rows that both were compared on.
    tail_champion, tail_challenger: mean loss of the worst tenth of these rows.
    figures: "champion", "challenger" -> mean, tail, stability on these rows.
    passed: whether every gate holds.
    needs: what a challenger that passed waits for: "shadow" (windows beside the champion), "person", or nothing.
    holdout: "fresh" rows among `rows` that no earlier challenger of this champion was judged on; "looks" before this
        one; "last_seq", the newest row looked at.
    """

    promoted: bool
    version: str
    champion: str | None
    gates: tuple[Gate, ...]
    first: bool
    reasons: tuple[str, ...]
    rows: int = 0
    tail_champion: float | None = None
    tail_challenger: float | None = None
    figures: dict[str, dict[str, float]] | None = None
    passed: bool = False
    needs: str | None = None
    holdout: dict[str, int] | None = None

    def document(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        document = asdict(self)
        document["gates"] = [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in gate.items()
            }
            for gate in document["gates"]
        ]
        return document


def decision_of(details: dict[str, Any]) -> Decision:
    """The decision that an entry of the ledger holds."""
    known = {field.name for field in fields(Decision)}
    values = {name: value for name, value in details.items() if name in known}
    values.setdefault("passed", values["promoted"])  # entries from before challengers could wait
    values["gates"] = tuple(Gate(**gate) for gate in values["gates"])
    values["reasons"] = tuple(values["reasons"])
    return Decision(**values)


def nothing_decided(version: str, champion: str | None, reason: str) -> Decision:
    """No gate was asked; `reason` says why."""
    return Decision(False, version, champion, (), champion is None, (reason,))


def same_model(version: str, champion: str, reason: str) -> Decision:
    """A challenger that is the champion."""
    return Decision(False, version, champion, (Gate("difference", 0.0, None, None, None, False, reason),), False,
                    (reason,))  # fmt: skip


def margins_of(settings: Settings) -> Margins:
    """The gates' margins as the configuration states them."""
    rules = settings.promotion
    return Margins(
        mean=rules.mean_margin,
        tail=rules.tail_margin,
        stability=rules.stability_margin,
        recall=rules.recall_margin,
        slices=rules.slice_margin,
        confidence=rules.confidence,
        resamples=rules.resamples,
        min_rows=rules.min_holdout_rows,
        min_slice_rows=rules.min_slice_rows,
    )


def looks_at(entries: Sequence[Entry], champion: str | None) -> list[Entry]:
    """The entries of gates that compared a challenger with this champion on held-out rows."""
    return [
        entry
        for entry in entries
        if entry.action == DECIDED and entry.details["from"] == champion and entry.details.get("rows")
    ]


def judged_before(entries: Sequence[Entry], digest: str, champion: str | None) -> Entry | None:
    """The entry by which gates refused this very model against this champion, were it under another version.

    A refusal for want of rows does not count: with more rows the answer can be another.
    """
    for entry in reversed(looks_at(entries, champion)):
        details = entry.details
        if details.get("digest") == digest and not details.get("passed", details["promoted"]):
            failed = [gate for gate in details["gates"] if not gate["passed"]]
            if any(gate["figure"] is not None and gate["gated"] and gate["name"] != "latency" for gate in failed):
                return entry
    return None


def decide(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    training: Training,
    champion: str | None,
    entries: Sequence[Entry],
) -> Decision:
    """Bring a challenger before the gates; nothing is written.

    Parameters
    ----------
    entries: the ledger, for how often the held-out rows were looked at.

    Raises
    ------
    Refused: a model's files are not those that were registered.
    """
    version, seed = training.version, settings.training.seed
    if champion is not None and tracker.version(champion).digest == training.digest:
        reason = f"version {version} is the same model as the champion, version {champion}: there is nothing to gain"
        return same_model(version, champion, reason)
    images = images_of(settings, workspace)
    frame = held_out_rows(store, tracker, settings, [name for name in (version, champion) if name is not None])
    challenger = tracker.load(version, afresh=True)
    if champion is None:
        if settings.task.kind == "classification":
            frame = frame[frame["label"].isin(challenger.classes or [])].reset_index(drop=True)
        losses = challenger.row_losses(frame, _truth(frame, settings), images)
        margins = margins_of(settings)
        gate = beats_constant(
            losses, constant_losses(tracker, version, challenger, frame), groups=independent_groups(frame, settings),
            confidence=margins.confidence, resamples=margins.resamples, min_rows=margins.min_rows, seed=seed,
        )  # fmt: skip
        costs = cost_gates(challenger, frame, settings.promotion, images)
        return _decision(version, None, (gate, *costs), (), challenger=losses, holdout=_looked(frame, []))
    looks = looks_at(entries, champion)
    holdout = _looked(frame, looks)
    notes = []
    if looks:
        also = ""
        if holdout["fresh"] >= settings.promotion.fresh_rows:
            frame = frame[frame["_seq"] > _last_seq(looks)].reset_index(drop=True)
            also = "; only these are looked at"
        times = "once" if len(looks) == 1 else f"{len(looks)} times"
        notes.append(
            f"the held-out rows were looked at {times} for this champion; {holdout['fresh']} have come since{also}"
        )
    comparison, left_out = compare(tracker.load(champion), challenger, frame, settings, images)
    gates = judge(comparison, margins_of(settings), seed=seed)
    gates += cost_gates(challenger, frame, settings.promotion, images)
    if left_out:
        notes.append(f"{left_out} held-out rows of classes that one of the models does not know are left out")
    return _decision(
        version, champion, gates, tuple(notes), challenger=comparison.challenger_losses,
        old=comparison.champion_losses, holdout=holdout,
    )  # fmt: skip


def _looked(frame: pd.DataFrame, looks: Sequence[Entry]) -> dict[str, int]:
    """What is kept of a look at held-out rows."""
    return {
        "fresh": int((frame["_seq"] > _last_seq(looks)).sum()),
        "looks": len(looks),
        "last_seq": int(frame["_seq"].max()) if len(frame) else -1,
    }


def _last_seq(looks: Sequence[Entry]) -> int:
    return max(((entry.details.get("holdout") or {}).get("last_seq", -1) for entry in looks), default=-1)


def _decision(
    version: str,
    champion: str | None,
    gates: tuple[Gate, ...],
    notes: tuple[str, ...],
    *,
    challenger: np.ndarray,
    holdout: dict[str, int],
    old: np.ndarray | None = None,
) -> Decision:
    failed = [gate.reason for gate in gates if not gate.passed]
    notes += tuple(gate.reason for gate in gates if gate.name == "export" and not gate.gated)
    found = [gate.reason for gate in gates if gate.gated and not gate.name.startswith("slice ")]
    figures = {} if old is None else {"champion": three(old)}
    figures["challenger"] = three(challenger)
    return Decision(
        promoted=False,
        version=version,
        champion=champion,
        gates=gates,
        first=champion is None,
        reasons=(*(failed or found), *notes),
        rows=len(challenger),
        tail_champion=None if old is None else figures["champion"].get("tail"),
        tail_challenger=figures["challenger"].get("tail"),
        figures=figures,
        passed=not failed,
        holdout=holdout,
    )


def three(losses: np.ndarray) -> dict[str, float]:
    """Mean, tail and stability; empty without rows."""
    from softad.figures import cvar

    if len(losses) == 0:
        return {}
    return {"mean": float(losses.mean()), "tail": cvar(losses, 0.9), "stability": float(losses.std())}


def _truth(frame: Any, settings: Settings) -> np.ndarray:
    from flows.candidates import truth_of

    return truth_of(frame, settings)
