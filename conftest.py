"""Shared by all tests: homes and telemetry are isolated before any library is imported; skips can be made failures."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before Prefect or MLflow is imported anywhere: both read their settings at import.
_HOME = tempfile.mkdtemp(prefix="softad-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["PREFECT_HOME"] = str(Path(_HOME) / "prefect")
os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
os.environ["PREFECT_SERVER_LOGGING_LEVEL"] = "WARNING"
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ["COLUMNS"] = "200"

import flows  # noqa: E402, F401  (switches telemetry off)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then the files that are slow as a whole: one of them at the very end would leave a processor
    with nothing to do."""

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(item.config.rootpath).parts
        if parts[0] != "tests" or parts[1] == "unit":
            return 0
        parent = item.getparent(pytest.Module)
        whole = parent is not None and any(mark.name == "slow" for mark in parent.own_markers)
        return 1 if whole else 2

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every skipped test with its reason, so that nobody takes a skip for a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("skipped, by name")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where SOFTAD_FAIL_ON_SKIP is set, as in continuous integration, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SOFTAD_FAIL_ON_SKIP") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; the test skips where it is not given."""
    folder = os.environ.get("SOFTAD_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SOFTAD_DATA does not name the folder of the real data sets")
    return Path(folder)


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """MLflow keeps the address that a test sets in the environment too: the next test, and every process that it
    starts, would work on that test's registry."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def _clean_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder and check that nothing was left in it."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
