"""What machines read about cycles: `metrics/MODEL.prom` for Prometheus, and `logs/MODEL.cycle.jsonl`, a line an event.

The metrics are a text file for the node exporter's textfile collector, written atomically after each cycle, so that
nothing more has to listen on a port. Secrets are taken out of the log before it is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flows.redaction import redacted
from flows.services import put_aside
from flows.workspace import write_atomically

if TYPE_CHECKING:
    from flows.context import Context
    from flows.cycle import CycleReport

HELP = {
    "softad_cycles_total": "Cycles that came to their end (outcome=done) or did not (outcome=failed).",
    "softad_rows_accepted": "Inspection rows taken in so far.",
    "softad_rows_quarantined": "Rows held back with a reason so far.",
    "softad_rows_awaiting_labels": "Rows that have no label yet.",
    "softad_incidents_open": "Incidents that are not closed.",
    "softad_alarm": "1 while an incident is open that nobody has answered.",
    "softad_outbox_waiting": "Alerts that are not with all their channels.",
    "softad_champion_version": "Version of the model in use; 0 before the first.",
    "softad_last_success_timestamp_seconds": "When the last cycle came to its end.",
    "softad_last_cycle_duration_seconds": "How long the last cycle took.",
}
_COUNTER = "softad_cycles_total"

Values = dict[tuple[str, str], float]
"""(metric, outcome, or "" where it has none) -> value."""


@contextmanager
def observed(context: Context, report: CycleReport) -> Iterator[None]:
    """A cycle, between its line at the start and its line and metrics at the end, however it ends."""
    began = time.monotonic()
    log_event(context, "cycle.started")
    try:
        yield
    except Exception as error:
        try:
            _finish(context, failed=True, seconds=time.monotonic() - began, error=f"{type(error).__name__}: {error}")
        except OSError as other:
            # On a full disk nothing can be noted; the failure itself must still be seen.
            error.add_note(f"and it could not be noted: {other}")
        raise
    _finish(
        context, failed=False, seconds=time.monotonic() - began, status=report.status, files=len(report.ingests),
        scored=report.scored, windows=len(report.outcomes), actions=len(report.actions), delivered=report.delivered,
        notes=[str(note) for note in report.notes],
    )  # fmt: skip


def log_event(context: Context, event: str, **details: Any) -> Path:
    """Append one JSON line to the model's log; a long log is put aside first, over the one before."""
    path = context.workspace.logs / f"{context.settings.name}.cycle.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    put_aside(path)
    with path.open("a", encoding="utf-8") as handle:
        _logger(handle, secrets_of(context)).info(event, model=context.settings.name, **details)
    return path


def secrets_of(context: Context) -> list[str]:
    """The addresses of channels, which are secret as a whole: a chat's address is its key."""
    alerts = context.settings.alerts
    return [*alerts.channels, *alerts.escalate_to]


def metrics_path(context: Context) -> Path:
    """Where the model's metrics are."""
    return context.workspace.root / "metrics" / f"{context.settings.name}.prom"


def write_metrics(context: Context, *, failed: bool, seconds: float) -> Path:
    """Write the metrics as they are now; after a failure the figures stay those of the cycle before."""
    path = metrics_path(context)
    values = read_metrics(path)
    outcome = "failed" if failed else "done"
    for name in ("done", "failed"):
        values.setdefault((_COUNTER, name), 0.0)
    values[_COUNTER, outcome] += 1.0
    values["softad_last_cycle_duration_seconds", ""] = seconds
    if not failed:
        values |= {(name, ""): value for name, value in _figures(context).items()}
        values["softad_last_success_timestamp_seconds", ""] = time.time()
    write_atomically(path, exposition(values, context.settings.name))
    return path


def exposition(values: Values, model: str) -> str:
    """The values in Prometheus's text format.

    >>> print(exposition({("softad_alarm", ""): 1.0}, "line-a").splitlines()[-1])
    softad_alarm{model="line-a"} 1.0
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

    families: dict[str, Any] = {}
    for (name, outcome), value in sorted(values.items()):
        labels = ["model", *(["outcome"] if outcome else [])]
        kind = CounterMetricFamily if name == _COUNTER else GaugeMetricFamily
        family = families.setdefault(name, kind(name, HELP[name], labels=labels))
        family.add_metric([model, *([outcome] if outcome else [])], value)

    class _Given:
        def collect(self) -> Iterator[Metric]:
            yield from families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given())
    return generate_latest(registry).decode()


def read_metrics(path: Path) -> Values:
    """The values of a file that `write_metrics` wrote; none where there is no file, or one of another program.

    >>> read_metrics(Path("/nonexistent"))
    {}
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}  # counters begin anew, as Prometheus expects after a loss
    return {
        (sample.name, sample.labels.get("outcome", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.name in HELP
    }


def _finish(context: Context, *, failed: bool, seconds: float, **details: Any) -> None:
    log_event(context, "cycle.failed" if failed else "cycle.done", seconds=round(seconds, 3), **details)
    write_metrics(context, failed=failed, seconds=seconds)


def _figures(context: Context) -> dict[str, float]:
    from flows.alerting import outbox_of
    from flows.context import utc_now
    from flows.incidents import open_incidents
    from flows.received import received

    seen = received(context, now=utc_now())
    incidents = open_incidents(context.store)
    return {
        "softad_rows_accepted": context.store.count("inspections"),
        "softad_rows_quarantined": seen.quarantined,
        "softad_rows_awaiting_labels": seen.awaiting_labels,
        "softad_incidents_open": len(incidents),
        "softad_alarm": float(any(one.answer is None for one in incidents)),
        "softad_outbox_waiting": outbox_of(context).waiting(),
        "softad_champion_version": float(context.tracker.champion() or 0),
    }


def _logger(handle: TextIO, secrets: list[str]) -> Any:
    import structlog

    def without_secrets(logger: Any, method: str, event: Any) -> Any:  # noqa: ARG001  (a signature that it prescribes)
        return {name: _clean(value, secrets) for name, value in event.items()}

    return structlog.wrap_logger(
        structlog.PrintLogger(handle),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            without_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _clean(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return redacted(value, secrets)
    return [_clean(one, secrets) for one in value] if isinstance(value, list) else value
