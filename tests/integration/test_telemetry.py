"""Nothing leaves the machine: every connection to another one is made to fail, and recorded; none is tried."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.integration.local_system import LocalSystem

HERE = Path(__file__).absolute().parent
ROOT = HERE.parent.parent
GUARD = HERE / "loopback_only"
RECORD = "SOFTAD_TEST_CONNECTS"


class Guard:
    """What was seen by the guard of one test, in this process and in those that it started.

    Attributes
    ----------
    environment: for processes that the test starts with an environment of its own.
    """

    def __init__(self, record: Path, environment: dict[str, str]) -> None:
        self._record = record
        self.environment = environment

    def _lines(self, kind: str) -> list[str]:
        lines = self._record.read_text().splitlines()
        return [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]

    @property
    def tried(self) -> list[str]:
        """Each refusal: `PID FUNCTION WHERE`."""
        return self._lines("tried")

    def guarded(self, part: str) -> bool:
        """Whether a process whose command line holds `part` was under guard."""
        return any(part in line for line in self._lines("guarded"))


def load_guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback_guard", GUARD / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def c_guard(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The guard for what is not Python; None on a machine without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, GUARD / "guard.c", "-ldl"], check=True)
    return library


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, c_guard: Path | None) -> Iterator[Guard]:
    """Only loopback can be reached, from here and from every process started from here."""
    module = load_guard()
    record = tmp_path / "connects.txt"
    record.touch()
    paths = [str(GUARD), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv(RECORD, str(record))
    if c_guard is not None:
        monkeypatch.setenv("LD_PRELOAD", str(c_guard))
    module.install(str(record))
    try:
        yield Guard(record, dict(os.environ))
    finally:
        module.release()


ATTEMPTS = {
    "a socket": "import socket; socket.create_connection(('192.0.2.1', 443), timeout=1)",
    "a name": "import socket; socket.getaddrinfo('telemetry.example.com', 443)",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('192.0.2.1', 443))",
    "httpx": "import httpx; httpx.get('https://telemetry.example.com', timeout=1)",
}
NOT_PYTHON = {
    "uvloop": "import uvloop, asyncio; uvloop.run(asyncio.open_connection('192.0.2.1', 443))",
    "duckdb": "import duckdb; duckdb.sql(\"install spatial from 'http://telemetry.example.com'\")",
    "deltalake": "import deltalake; deltalake.DeltaTable('s3://bucket/table', storage_options="
    "{'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_REGION': 'us-east-1'})",
}


def child(code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("code", ATTEMPTS.values(), ids=ATTEMPTS)
def test_the_guard_refuses_and_records_a_childs_attempt(guard: Guard, code: str) -> None:
    ended = child(code, guard.environment)
    assert ended.returncode != 0
    assert guard.tried, ended.stderr
    assert guard.guarded("-c")


@pytest.mark.parametrize("code", NOT_PYTHON.values(), ids=NOT_PYTHON)
def test_the_guard_sees_what_is_not_python(guard: Guard, code: str, c_guard: Path | None) -> None:
    ended = child(code, guard.environment)
    assert ended.returncode != 0
    if c_guard is None:  # then uvloop is kept out, and what other libraries do in C cannot be seen
        assert "uvloop" not in code or "ModuleNotFoundError" in ended.stderr
    else:
        assert guard.tried, ended.stderr


def test_the_guard_works_in_this_process_and_lets_loopback_through(guard: Guard) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        socket.getaddrinfo("localhost", 80)
    assert guard.tried == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("192.0.2.1", 443), timeout=1)
    with pytest.raises(OSError, match="refused"):
        socket.getaddrinfo("telemetry.example.com", 443)
    assert len(guard.tried) == 2


MLFLOW_RUN = """
import flows, mlflow, sys, time
mlflow.set_tracking_uri(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///mlflow.db")
with mlflow.start_run():
    mlflow.log_metric("x", 1.0)
time.sleep(3)
"""


@pytest.mark.slow
def test_the_guard_would_catch_a_library_that_reports(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same MLflow run with and without its telemetry: only then is an empty record worth something."""
    monkeypatch.chdir(tmp_path)
    loud = {name: value for name, value in guard.environment.items() if "TRACK" not in name and "TELEMETRY" not in name}
    # What MLflow takes for signs of a developer's own test, and then keeps silent.
    loud = {name: value for name, value in loud.items() if not name.startswith(("PYTEST_", "CI", "GITHUB_"))}
    ended = child(MLFLOW_RUN.replace("import flows, ", "import "), loud)
    assert ended.returncode == 0, ended.stderr
    assert any("mlflow" in line for line in guard.tried), guard.tried
    before = len(guard.tried)
    ended = child(MLFLOW_RUN, loud)  # `import flows` switches it off
    assert ended.returncode == 0, ended.stderr
    assert guard.tried[before:] == []


ONNX_SESSION = """
import sys, time
import onnx
from onnx import TensorProto, helper
kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", kinds[:1], kinds[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
helper.set_model_props(model, {"softad": "{}"})
if sys.argv[1] == "softad":
    from softad.export import OnnxModel
    OnnxModel(model.SerializeToString(), threads=1)
else:
    import onnxruntime
    onnxruntime.InferenceSession(model.SerializeToString())
time.sleep(15)
"""


@pytest.mark.slow
def test_exported_models_run_without_a_report_to_the_runtimes_maker(guard: Guard, c_guard: Path | None) -> None:
    """softad alone, without flows: the runtime by itself looks its maker up, from inside the library."""
    loud = {name: value for name, value in guard.environment.items() if "TRACK" not in name and "TELEMETRY" not in name}
    loud.pop("CI", None)
    ended = child(ONNX_SESSION, loud, "softad")
    assert ended.returncode == 0, ended.stderr
    assert guard.tried == []
    ended = child(ONNX_SESSION, loud, "bare")
    assert ended.returncode == 0, ended.stderr
    if c_guard is not None:  # what a library does in C is seen by this guard only
        assert any("microsoft" in line for line in guard.tried), guard.tried


@pytest.mark.slow
@pytest.mark.servers
def test_the_local_system_reaches_nothing_but_this_machine(guard: Guard, tmp_path: Path) -> None:
    """Server, worker, MLflow and page, with a scheduled cycle, an event and a retraining."""
    system = LocalSystem(tmp_path / "workspace", guard.environment)
    system.train_for(1)
    try:
        system.up_ready()
        system.shift("quiet-1")
        system.finished_once("quiet-1")
        ended = child(MLFLOW_RUN, guard.environment, system.where().mlflow)
        assert ended.returncode == 0, ended.stderr
    finally:
        system.end()
    for part in ("prefect server start", "mlflow server", "uvicorn", "page_server", "worker start", "prefect.engine"):
        assert guard.guarded(part), part
    assert guard.tried == []


@pytest.mark.slow
def test_a_whole_cycle_reaches_nothing_but_this_machine(guard: Guard, tmp_path: Path) -> None:
    """From the inbox to the page, with the first model, a judged window and its Evidently report."""
    workspace = tmp_path / "workspace"
    environment = {name: value for name, value in guard.environment.items() if not name.startswith("PREFECT_HOME")}
    # What the product itself switches off must be enough.
    for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        environment.pop(name, None)
    command = ["demo", "--weeks", "1", "--rows", "500", "--change", "none", "--workspace", str(workspace), "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command], env=environment, cwd=tmp_path, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (workspace / "page" / "demo" / "index.html").exists()
    assert any((workspace / "reports" / "demo").glob("*.json"))
    assert guard.guarded("demo")
    assert guard.tried == []
