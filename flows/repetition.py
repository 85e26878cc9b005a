"""A training done again on the very rows of an earlier one, and whether it gave the same model, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.retrain import retrain
from flows.run_files import DOCUMENT, LINEAGE, read_document
from flows.tracking import BUNDLE, MODEL

if TYPE_CHECKING:
    from flows.context import Context
    from flows.model_records import RunInfo
    from flows.tracking import Tracker

_COMPARED = ("code.", "env.")
_MACHINE = ("env.platform", "env.cpus")
"""They may differ without a word: equal weights are expected all the same."""


@dataclass(frozen=True)
class Difference:
    """Something recorded with both runs that is not the same: `then` in the first, `now` in its repetition."""

    name: str
    then: str
    now: str


@dataclass(frozen=True)
class Repetition:
    """What came of training again.

    Attributes
    ----------
    run, again: the run that was repeated, and the run that repeats it.
    digest, digest_again: SHA-256 of the models, weights and all that goes with them.
    weights, weights_again: SHA-256 of the weights alone.
    reference_equal: whether the plain model beside it is the same, too.
    differences: of code, libraries and machine.
    device: where it was trained; only on the CPU the same weights are promised.
    reused: whether it had been repeated before, with this code and these libraries.
    """

    run: str
    again: str
    digest: str
    digest_again: str
    weights: str
    weights_again: str
    reference_equal: bool
    differences: tuple[Difference, ...]
    device: str = "cpu"
    reused: bool = False

    @property
    def equal(self) -> bool:
        """Whether both gave the same model, bit by bit."""
        return self.digest == self.digest_again

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "equal": self.equal}


def repeat(context: Context, run: str, *, now: datetime, progress: Callable[[str], None] | None = None) -> Repetition:
    """Train again what a run trained: its rows by the tables' versions, its settings, its seed.

    Raises
    ------
    BadConfig: there is no such run of this model.
    Refused: it is no finished training, or its rows are not there as they were.
    """
    tracker = context.tracker
    training = retrain(
        context.store, tracker, context.settings, context.workspace, now=now, reason="again", at_run=run,
        progress=progress,
    )  # fmt: skip
    old, new = tracker.run(run), tracker.run(training.run_id)
    first = recorded(tracker, old)
    return Repetition(
        run=run,
        again=training.run_id,
        digest=first["digest"],
        digest_again=training.digest,
        weights=_weights(tracker, run),
        weights_again=_weights(tracker, training.run_id),
        reference_equal=first["reference_digest"] == training.reference_digest,
        differences=differences(old.params, new.params),
        device=old.params.get("env.device", "cpu"),
        reused=training.reused,
    )


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[Difference, ...]:
    """What two runs recorded of code, libraries and machine, where it is not the same in both.

    >>> differences({"env.torch": "2.12.1", "env.numpy": "2.4"}, {"env.torch": "2.13.0", "env.numpy": "2.4"})
    (Difference(name='env.torch', then='2.12.1', now='2.13.0'),)
    """
    names = sorted(name for name in {*then, *now} if name.startswith(_COMPARED))
    pairs = [(name, then.get(name, "not recorded"), now.get(name, "not recorded")) for name in names]
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def recorded(tracker: Tracker, run: RunInfo) -> dict[str, Any]:
    """The document that a training left in its run."""
    return read_document(tracker, run.run_id, f"{LINEAGE}/{DOCUMENT}", lambda content: content)


def lines_of(found: Repetition) -> list[str]:
    """In sentences.

    >>> same = Repetition("a1", "b2", "00ff", "00ff", "1", "1", True, ())
    >>> for line in lines_of(same):
    ...     print(line)
    run b2 trained again what run a1 trained
    model then: 00ff
    model now:  00ff
    equal, bit by bit; the plain model beside it too
    code, libraries and machine: nothing that was recorded differs
    """
    verb = "had been trained again before by run {again}, with this code" if found.reused else None
    lines = [
        f"run {found.run} {verb.format(again=found.again)}" if verb
        else f"run {found.again} trained again what run {found.run} trained",
        f"model then: {found.digest}",
        f"model now:  {found.digest_again}",
    ]  # fmt: skip
    if found.equal:
        beside = "the plain model beside it too" if found.reference_equal else "the plain model beside it is NOT equal"
        lines.append(f"equal, bit by bit; {beside}")
    else:
        same = "the weights are equal, what goes with them is not" if found.weights == found.weights_again else (
            f"weights then {found.weights}, now {found.weights_again}"
        )  # fmt: skip
        lines.append(f"NOT equal: {same}")
    for one in found.differences:
        lines.append(f"differs: {one.name} was {one.then}, is {one.now}")
    if not found.differences:
        lines.append("code, libraries and machine: nothing that was recorded differs")
    return lines if found.equal else [*lines, _advice(found)]


def _advice(found: Repetition) -> str:
    """What to do about two models that are not the same."""
    by_name = {one.name: one for one in found.differences}
    if found.device != "cpu":
        return f"it was trained on {found.device}, where the same weights are not promised; they are on the CPU"
    if "env.torch" in by_name:
        torch = by_name["env.torch"]
        return (
            f"torch of another version rounds differently: to get the same weights, install torch=={torch.then} (here "
            f"is {torch.now}) into an environment of its own and repeat the run there"
        )
    if "code.digest" in by_name:
        commit = by_name["code.commit"].then if "code.commit" in by_name else "that of then"
        return f"the code is another: to get the same weights, take its commit ({commit}) and repeat the run there"
    rest = [one.name for one in found.differences if one.name not in _MACHINE]
    if rest:
        return f"to get the same weights, bring {', '.join(rest)} to what it was and repeat the run"
    return (
        "nothing is known that explains it: look at the processor and at MLflow's artifacts of both runs, and report it"
    )


def _weights(tracker: Tracker, run: str) -> str:
    from softad.bundle_files import DOCUMENT as BUNDLE_DOCUMENT

    path = f"{MODEL}/data/{BUNDLE}/{BUNDLE_DOCUMENT}"
    return read_document(tracker, run, path, lambda content: str(content["weights_sha256"]))
