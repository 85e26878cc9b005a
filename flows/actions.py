"""What was done about a challenger: one retraining, gate decision or request, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.decisions import Decision
from flows.trainings import Training


@dataclass(frozen=True)
class Action:
    """One retraining, gate decision or request.

    Attributes
    ----------
    kind: held | considered | requested.
    decision: the gates' answer, where it came to them.
    """

    kind: str
    incident: str | None
    training: Training | None
    decision: Decision | None

    @property
    def promoted(self) -> bool:
        """Whether the champion changed."""
        return self.decision is not None and self.decision.promoted

    @property
    def waits(self) -> bool:
        """Whether the challenger passed the gates and waits for further windows or for a person."""
        return self.decision is not None and self.decision.passed and not self.decision.promoted

    def document(self) -> dict[str, Any]:
        """For programs."""
        from dataclasses import asdict

        return {
            "kind": self.kind,
            "incident": self.incident,
            "version": self.training.version if self.training else None,
            "run": self.training.run_id if self.training else None,
            "decision": asdict(self.decision) if self.decision else None,
        }

    def promotion(self) -> dict[str, Any]:
        """The gates' answer in short: version, champion then, reasons, tails on the held-out rows."""
        decision = self.decision
        if decision is None:
            raise ValueError("no decision was taken in this action")
        return {
            "version": decision.version,
            "champion": decision.champion,
            "promoted": decision.promoted,
            "reasons": list(decision.reasons),
            "tail_champion": decision.tail_champion,
            "tail_challenger": decision.tail_challenger,
            "incident": self.incident,
        }
