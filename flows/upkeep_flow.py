"""What is done at night and once a week: files removed and joined, and the report of the week kept and announced."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow

from flows.context import Context, open_context, utc_now


def weekly_report(context: Context, *, now: datetime) -> Path:
    """Keep the page as the report of the last seven days and announce it through the channels, once a week.

    Returns
    -------
    The report, beside the page, so that its links hold.
    """
    from flows.alerting import alert_week, deliver_alerts
    from flows.incidents import open_incidents
    from flows.page import refresh_page
    from flows.workspace import write_atomically

    page = refresh_page(context, now=now)
    year, number, _ = (now - timedelta(days=1)).isocalendar()
    week = f"{year}-W{number:02}"
    report = page.with_name(f"{week}.html")
    write_atomically(report, page.read_bytes())
    store, since = context.store, f"TIMESTAMPTZ '{(now - timedelta(days=7)).isoformat()}'"
    counts = {
        "rows": store.count("inspections", f"_at >= {since}"),
        "quarantined": store.count("quarantine", f'"at" >= {since}'),
        "windows": store.count("windows", f'"at" >= {since}'),
        "alarms": store.count("windows", f'"at" >= {since} AND alarm'),
        "open": len(open_incidents(store)),
    }
    alert_week(context, week=week, counts=counts, report=report, now=now)
    deliver_alerts(context)
    return report


@flow(name="maintain", persist_result=False)
def maintain_flow(config: str, workspace: str) -> dict[str, Any]:
    """The nightly tidying of one model.

    Parameters
    ----------
    config, workspace: paths.
    """
    from flows.maintenance import maintain

    return asdict(maintain(open_context(Path(config), Path(workspace)), now=utc_now()))


@flow(name="report", persist_result=False)
def report_flow(config: str, workspace: str) -> str:
    """The weekly report of one model.

    Parameters
    ----------
    config, workspace: paths.
    """
    return str(weekly_report(open_context(Path(config), Path(workspace)), now=utc_now()))
