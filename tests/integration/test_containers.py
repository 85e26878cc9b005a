"""The images are built, brought up, asked for their logins and used, as `make containers` does; it fetches packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.services import free_port

ROOT = Path(__file__).parents[2]
NOT_HERE = 77
"""The script's status where a machine cannot run it."""


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(1500)
def test_images_are_built_and_the_demo_runs_on_them(tmp_path: Path) -> None:
    for needed in ("podman", "podman-compose"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    ports = {name: str(free_port()) for name in ("PAGE_PORT", "MLFLOW_PORT", "PREFECT_PORT")}
    log = tmp_path / "containers.log"
    done = subprocess.run(
        [ROOT / "docker" / "containers.sh"],
        env={**os.environ, **ports, "LOG": str(log), "CONTAINERS": "podman"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode == NOT_HERE:
        pytest.skip(said.splitlines()[-1])
    assert done.returncode == 0, said
    lines = log.read_text().splitlines()
    for port in ports.values():
        assert any(f":{port}/" in line and line.endswith("asks for a login (401)") for line in lines), said
        assert any(
            f":{port}/" in line and line.startswith("with a login: ") and line.endswith(" 200") for line in lines
        )
    assert "the page with the demo: 200" in lines
    assert '"aliases":[{"alias":"champion","version":"1"}]' in lines
    assert lines[-1].startswith("down: done in ")
    left = subprocess.run(["podman", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    assert "softad-trial" not in left.stdout
