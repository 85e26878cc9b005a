"""Adopt, adopt with this setting, or do not: the verdict of a pilot study, and the config that puts it to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flows.pilot_data import Material
from flows.settings import Settings

if TYPE_CHECKING:
    from softad.pilot_report import Candidate, PilotReport

Kind = Literal["nothing", "short", "unfinished", "leak", "adopt", "setting", "other", "keep"]


@dataclass(frozen=True)
class Verdict:
    """What to do.

    Attributes
    ----------
    kind: "nothing" can be learnt; too "short" to say, or training was "unfinished"; only a "leak" was left to learn
        from; "adopt" as softad is set up, with the "setting" found here; an "other" way, which is not SoftAD, is
        better; "keep" plain training.
    best: the candidate that the study recommends.
    compared: the candidate that the effect is told of: the recommended, or where that is plain training the SoftAD
        that is nearest to being recommended.
    pipeline: the candidate that the config trains.
    """

    kind: Kind
    best: Candidate
    compared: Candidate
    pipeline: Candidate


def decide(report: PilotReport, material: Material) -> Verdict:
    """The verdict on a study."""
    plain, best = report.candidates[0], report.recommendation.candidate
    usable = [one for one in report.candidates if not one.diverged]
    ours = [one for one in usable if thetas_of(one) is not None and one is not plain]
    nearest = min(ours, key=lambda one: (bool(one.refused), one.figures["tail"].value), default=plain)
    good = [one for one in ours if not one.refused]
    leaks = {leak.column for leak in material.proposal.leaks}
    learnt = report.evidence.has_learnt
    kind: Kind
    if learnt is None:
        kind = "short"
    elif not learnt:
        kind = "nothing"
    elif material.pictures is None and set(material.settings.data.features) <= leaks:
        kind = "leak"
    elif best is plain:
        kind = "unfinished" if report.recommendation.case == "trained too briefly to tell" else "keep"
    elif thetas_of(best) is not None:
        kind = "adopt" if thetas_of(best) == ["auto"] else "setting"
    else:
        ours_too = best.kind == "bounded" or (good and objectives_of(best) is None)
        kind = "setting" if ours_too else "other"
    if kind in ("nothing", "short", "leak", "keep", "unfinished"):
        return Verdict(kind, best, nearest, plain)
    if thetas_of(best) is not None or objectives_of(best) is not None:
        return Verdict(kind, best, best, best)
    return Verdict(kind, best, nearest if good else best, nearest if good else plain)


def thetas_of(candidate: Candidate) -> list[Any] | None:
    """What the config's ``training.thetas`` says for a candidate; None where no config trains it."""
    from softad import Mean, SoftAD

    spec = candidate.spec
    if spec.label_smoothing or spec.focal or spec.class_weights:
        return None
    if isinstance(spec.criterion, Mean):
        return []
    if isinstance(spec.criterion, SoftAD) and spec.criterion.transform is None:
        return [spec.criterion.theta]
    return None


def objectives_of(candidate: Candidate) -> list[str] | None:
    """What the config's ``training.objectives`` says for a candidate; None where no config trains it so."""
    from softad.pilot_criteria import criterion_named

    spec = candidate.spec
    if spec.label_smoothing or spec.focal or spec.class_weights:
        return None
    try:
        same = repr(criterion_named(candidate.name)) == repr(spec.criterion)
    except ValueError:
        return None  # its name is of a kind that takes more than a criterion, or of SoftAD, which thetas train
    return [candidate.name] if same else None


def settings_for(report: PilotReport, material: Material, verdict: Verdict) -> Settings:
    """The config that trains what the verdict says, the way the study trained."""
    from softad import SoftAD

    criterion, shared = verdict.pipeline.spec.criterion, report.training
    changes: dict[str, Any] = {
        "thetas": thetas_of(verdict.pipeline) or [],
        "objectives": objectives_of(verdict.pipeline) or [],
        "model": shared["model"],
        "hidden": list(shared["hidden"]),
        "patience": shared["patience"],
        "batch_size": shared["batch_size"],
        "learning_rate": shared["learning_rate"],
        "weight_decay": shared["weight_decay"],
        "optimizer": shared["optimizer"],
    }
    if isinstance(criterion, SoftAD):
        changes["sigma"] = criterion.sigma
    split = material.settings.training.split.model_copy(
        update={"by": {"random": "stratified"}.get(material.split, material.split)}
    )
    training = material.settings.training.model_copy(update={**changes, "split": split})
    document = material.settings.model_copy(update={"training": training}).model_dump(mode="json", exclude_unset=False)
    return Settings(_env_prefix="SOFTAD_PILOT_READS_NO_VARIABLE__", **document)  # type: ignore[call-arg]
