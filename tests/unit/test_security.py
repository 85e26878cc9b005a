"""What the code may not do, and what hostile files and values cannot make it do."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml

from flows.errors import BadConfig
from flows.images import MAX_BYTES, ImageProblem, ImageSource
from flows.redaction import redacted
from flows.sbom import document
from flows.settings import load_settings
from monitoring.charts import heat_map
from monitoring.page_words import both, in_languages

ROOT = Path(__file__).absolute().parent.parent.parent
SOURCES = sorted(path for name in ("softad", "monitoring", "flows") for path in (ROOT / name).rglob("*.py"))
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save",
    "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle", "tempfile.mktemp",
}  # fmt: skip


def faults_of(text: str) -> list[str]:
    """Imports and calls in a source that can run code which data brings along."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(one.arg == "shell" and getattr(one.value, "value", None) is True for one in node.keywords)
            pickled = any(
                one.arg == "allow_pickle" and getattr(one.value, "value", None) is True for one in node.keywords
            )
            if name in FORBIDDEN_CALLS or shell or pickled:
                found.append(name)
    return found


def test_the_look_for_forbidden_calls_finds_them() -> None:
    text = "import pickle\nfrom joblib import load\neval('1')\nyaml.load(x)\nsubprocess.run('ls', shell=True)\n"
    assert faults_of(text + "np.load(x, allow_pickle=True)\nmodel.eval()\n") == [
        "pickle", "joblib", "eval", "yaml.load", "subprocess.run", "np.load",
    ]  # fmt: skip


def test_nothing_that_runs_what_data_brings_along() -> None:
    assert len(SOURCES) > 150
    found = {path.relative_to(ROOT).as_posix(): faults_of(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_config_cannot_make_objects(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(BadConfig, match="not valid YAML"):
        load_settings(config)
    assert not (tmp_path / "made").exists()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("!!python/name:os.system")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "x/../../a.png", "..\\a.png", "C:/a.png"])
def test_a_manifest_cannot_point_out_of_its_zip(tmp_path: Path, name: str) -> None:
    source = ImageSource.open(zipped(tmp_path / "week.zip", {name: b"x", "good.png": b"y"}))
    with pytest.raises(ImageProblem, match=r"points outside week\.zip"):
        source.read(name)
    assert source.read("good.png") == b"y"


def test_a_zip_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = zipped(tmp_path / "week.zip", {"bomb.png": bytes(MAX_BYTES + 1)})
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ImageProblem, match="more than the"):
        ImageSource.open(path).read("bomb.png")


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", {"bomb.png": bytes(10_000_000)}).read_bytes())
    size = (10_000_000).to_bytes(4, "little")
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "week.zip").write_bytes(content)
    with pytest.raises(ImageProblem, match="cannot be read"):
        ImageSource.open(tmp_path / "week.zip").read("bomb.png")


MARKUP = "<img src=x onerror=alert(1)>"


def test_markup_in_values_stays_text() -> None:
    from monitoring.charts import Square

    drawn = heat_map([MARKUP], [MARKUP], [Square(0, 0, MARKUP, 0.5)], labelled_by="map")
    assert "<img" not in str(drawn)
    assert "<img" not in str(in_languages({"en": MARKUP, "ja": MARKUP}))
    assert "<img" not in str(both("status.healthy", value=MARKUP))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:s3cret-word@db:5432/mlflow", "postgresql://…@db:5432/mlflow"),
        ("mailto://shift:s3cret-word@mail.plant", "mailto://…@mail.plant"),
        ("Authorization: Bearer s3cret-word, next", "Authorization: Bearer …, next"),
        ('{"password": "s3cret-word"}', '{"password": "…"}'),
        ("token=s3cret-word&x=1", "token=…&x=1"),
        ("M07 carries 72 %", "M07 carries 72 %"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_secret_variables_and_named_secrets_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_DB_PASSWORD", "canary-in-the-mine")
    said = redacted("refused: canary-in-the-mine at json://host/topsecretpath", ["json://host/topsecretpath"])
    assert said == "refused: … at …"


def test_the_bill_of_materials_names_every_package_of_the_lock() -> None:
    lock = ROOT / "requirements.lock"
    bill = document(lock)
    lines = [line for line in lock.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(bill["components"]) == len(lines) > 200
    assert len({one["bom-ref"] for one in bill["components"]}) == len(lines)
    torch = next(one for one in bill["components"] if one["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@2.")
    json.dump(bill, io.StringIO())
