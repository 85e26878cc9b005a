"""What the page shows, as plain values; who fills it in is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from monitoring.hard_errors import HardErrors
from monitoring.input_warnings import InputWarnings
from monitoring.places_map import PlacesMap

LORENZ_AT = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 1.0)
"""The shares of the parts, easiest first, at which it is kept what share of the loss they carry."""


@dataclass(frozen=True)
class VersionLine:
    """The part of a window that one model version predicted first."""

    version: str
    rows: int
    mean: float
    tail: float


@dataclass(frozen=True)
class WindowPoint:
    """One judged window.

    Attributes
    ----------
    mean, tail, stability: the champion's figures; None where too few labels came.
    erm_mean, erm_tail, erm_stability: of the reference trained without soft ascent-descent, on the same rows.
    statistic, threshold: of the scan; None where it did not look.
    budget_spent: share of the alarm budget's simulated lives that have alarmed.
    verdict: healthy | inspect | retrain | too_few_labels.
    versions: where the window's parts were first predicted by several models, each model's own figures.
    errors: standard error of each of the champion's figures, by its name.
    hard: errors on the hard rows; None where nothing says what an error is.
    held_back: healthy, though the reading is above its limit.
    """

    window: str
    labelled: int
    verdict: str
    alarm: bool = False
    mean: float | None = None
    tail: float | None = None
    stability: float | None = None
    erm_mean: float | None = None
    erm_tail: float | None = None
    erm_stability: float | None = None
    statistic: float | None = None
    threshold: float | None = None
    budget_spent: float | None = None
    promoted: bool = False
    report: str | None = None
    versions: Sequence[VersionLine] = ()
    hard: HardErrors | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    held_back: bool = False


@dataclass(frozen=True)
class Named:
    """A slice, or a range of a feature, with its share of the excess of the hard cases, and its interval.

    Attributes
    ----------
    sentence: the finding in words, by language.
    """

    column: str
    value: str
    share: float
    low: float
    high: float
    row_share: float
    sentence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlyLine:
    """What was told of a window before its labels, and what its labels said.

    Attributes
    ----------
    signs: what showed, each a kind ("predicted_loss", "confidence", "feature") and a feature's name or "".
    predicted: the mean loss that the model itself expected; None where it cannot tell.
    verdict: of the labels; None while the window waits for them.
    measured: the mean loss that the labels gave.
    changed: whether the labels showed a change; None as long as nothing is known.
    """

    window: str
    signs: Sequence[tuple[str, str]]
    predicted: float | None = None
    verdict: str | None = None
    measured: float | None = None
    changed: bool | None = None

    @property
    def shown(self) -> bool:
        """A sign showed."""
        return bool(self.signs)


@dataclass(frozen=True)
class OpenIncident:
    """An incident that is not closed."""

    key: str
    verdict: str
    value: str | None
    column: str | None
    share: float | None
    since: datetime | None
    state: str
    answer: str | None
    challenger: str | None
    held: bool
    span: tuple[str, str] | None = None
    """Column and range of a measurement that stands out, where no place does."""


@dataclass(frozen=True)
class LedgerLine:
    """An entry of the ledger; `note` is what it says, by language."""

    at: datetime
    actor: str
    action: str
    subject: str
    note: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """Why rows are in quarantine.

    Attributes
    ----------
    kind: as the catalogue names it; of a reason that it does not know, the rule's name.
    column: that it is about; "" where it is about the row.
    rows: how many.
    rule: its name, as `softad quarantine list` has it.
    """

    kind: str
    column: str
    rows: int
    rule: str = ""


@dataclass(frozen=True)
class Budget:
    """The alarm budget of the present life.

    Attributes
    ----------
    allowed: the probability of any false alarm over `horizon` windows.
    windows: that have been looked at.
    spent: share of the simulated lives that have alarmed so far; at most `allowed`.
    """

    allowed: float = 0.05
    horizon: int = 52
    windows: int = 0
    spent: float = 0.0

    @property
    def used(self) -> float:
        """The share of the budget that is used.

        >>> Budget(0.5, 52, 13, 0.125).used
        0.25
        """
        return min(self.spent / self.allowed, 1.0)

    @property
    def passed(self) -> float:
        """The share of the windows that have passed.

        >>> Budget(0.05, 52, 13, 0.01).passed
        0.25
        """
        return min(self.windows / self.horizon, 1.0)


@dataclass(frozen=True)
class Received:
    """What came in: rows read = accepted + quarantined + duplicates.

    Attributes
    ----------
    awaiting_labels: rows that have no label yet.
    held_back: names of files that were refused whole.
    reasons: why rows are in quarantine, most rows first.
    labels_without_row: labels of parts that no file has brought; they are kept, and wait for them.
    ahead: rows dated after the present: a clock was wrong; their window is judged when its time comes.
    late: rows whose window had been judged when they came; they train the next model, and are not judged.
    """

    files: int = 0
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    awaiting_labels: int = 0
    held_back: Sequence[str] = ()
    reasons: Sequence[Reason] = ()
    labels_without_row: int = 0
    ahead: int = 0
    late: int = 0


@dataclass(frozen=True)
class Weeks:
    """How much the share of hard cases differed between the weeks of the reference.

    Attributes
    ----------
    weeks: how many there were.
    spread, by_chance: standard deviation of the weekly shares, as seen and as chance alone gives it.
    exceeds: whether that is more than chance.
    """

    weeks: int
    spread: float
    by_chance: float
    exceeds: bool


@dataclass(frozen=True)
class Bought:
    """A figure of the champion against the reference of ordinary training on the same rows.

    Attributes
    ----------
    name: mean | tail | stability.
    value, low, high: relative change of the figure, with its interval of 95 %; below 0 the champion errs less.
    """

    name: str
    value: float
    low: float
    high: float

    @property
    def said(self) -> str:
        """lower | higher | none where the interval covers zero | small where the change is below one in 2,000.

        >>> Bought("tail", -0.1, -0.2, 0.01).said, Bought("tail", -0.0001, -0.0002, -0.00005).said
        ('none', 'small')
        """
        if abs(self.value) < 0.0005 and not self.low <= 0.0 <= self.high:
            # It would be shown as zero: no table may call that a gain.
            return "small"
        return "none" if self.low <= 0.0 <= self.high else ("lower" if self.value < 0.0 else "higher")


@dataclass(frozen=True)
class Carried:
    """The Lorenz curves of the reference and of a window: how much of the loss the easiest parts carry.

    Attributes
    ----------
    before, now: at each of `LORENZ_AT`.

    >>> Carried("2026-W07", [0.3] * 15, [0.2] * 15).hardest(0.1)
    (0.7, 0.8)
    """

    window: str
    before: Sequence[float]
    now: Sequence[float]

    def hardest(self, share: float) -> tuple[float, float]:
        """The share of the loss that the hardest `share` of the parts carries, before and now."""
        place = min(range(len(LORENZ_AT)), key=lambda place: abs(LORENZ_AT[place] - (1.0 - share)))
        return 1.0 - self.before[place], 1.0 - self.now[place]


@dataclass(frozen=True)
class PageData:
    """The whole page of one model.

    Attributes
    ----------
    points: the judged windows, oldest first.
    early: windows of which something was told before their labels, oldest first.
    links: addresses where runs are shown, by "mlflow" and "prefect"; those that are up.
    ordinary: standard deviation of each figure between ordinary weeks; empty where none is known.
    named, named_window: the places of the window in which places were last looked at.
    weeks: how much the weeks of the reference differ; None where they were not told apart.
    bought, bought_window, bought_rows: champion against ordinary training in the newest window that has both.
    map, map_window: hard cases by two columns, in the newest window in which they were looked for.
    carried: how the loss of the newest window is spread over its parts, and that of the reference.
    months: past and present months of which a page is kept beside this one, newest first, as "2026-03".
    inputs: what was unusual about the parts that the model in use has scored.
    card: name, before `.LANGUAGE.html`, of the files beside the page that hold the card of the model in use; None where
        there is none.

    >>> from datetime import UTC
    >>> PageData("line-a", datetime(2026, 4, 6, tzinfo=UTC)).status
    'no_model'
    """

    model: str
    written_at: datetime
    champion: str | None = None
    champion_since: datetime | None = None
    points: Sequence[WindowPoint] = ()
    named: Sequence[Named] = ()
    named_window: str = ""
    incidents: Sequence[OpenIncident] = ()
    ledger: Sequence[LedgerLine] = ()
    received: Received = field(default_factory=Received)
    early: Sequence[EarlyLine] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = Budget()
    ordinary: Mapping[str, float] = field(default_factory=dict)
    weeks: Weeks | None = None
    bought: Sequence[Bought] = ()
    bought_window: str = ""
    bought_rows: int = 0
    map: PlacesMap | None = None
    map_window: str = ""
    carried: Carried | None = None
    months: Sequence[str] = ()
    card: str | None = None
    inputs: InputWarnings = field(default_factory=InputWarnings)

    @property
    def status(self) -> str:
        """One word: no_model | inspect | retrain | too_few_labels | healthy."""
        if self.champion is None:
            return "no_model"
        # What a person has answered waits for nobody: the machine's parts are learned, or the machine is as it was.
        if any(one.verdict == "inspect" and one.answer is None for one in self.incidents):
            return "inspect"
        if any(one.verdict == "retrain" or one.answer == "new-normal" for one in self.incidents):
            return "retrain"
        # A window that alarmed and whose incident is over says nothing about the model or machine of today.
        if not self.points or self.points[-1].verdict != "healthy":
            return "too_few_labels"
        return "healthy"

    @property
    def saying(self) -> str:
        """What is said: the status, or held_back where all is healthy though the reading is above its limit."""
        return "held_back" if self.status == "healthy" and self.points[-1].held_back else self.status
