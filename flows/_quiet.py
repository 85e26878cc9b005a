"""Nothing leaves the plant: the analytics of every library that we use, off before its import."""

from __future__ import annotations

import logging
import os

_OFF = {
    # Prefect's client and Evidently read any of "1", "true"; MLflow only the literal "true".
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ITERATIVE_DO_NOT_TRACK": "true",
    # Prefect's server has a heartbeat of its own, also in the server that a single command starts.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    # onnxruntime reports to its maker from inside the library, on every system.
    "ORT_DISABLE_TELEMETRY": "1",
}
_CALM = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "GIT_PYTHON_REFRESH": "quiet",
}


def silence_telemetry() -> None:
    """Switch off all usage reporting; what the user set for anything else stays as it is.

    The switches are forced, the calming of logs and progress bars is only a default.

    >>> silence_telemetry()
    >>> os.environ["DO_NOT_TRACK"]
    'true'
    """
    os.environ.update(_OFF)
    for name, value in _CALM.items():
        os.environ.setdefault(name, value)
    # It tells of every temporary folder that it makes and removes.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
