"""A software bill of materials from requirements.lock, as CycloneDX 1.5 JSON: `make sbom`, for a plant's IT department.

Run as ``python -m flows.sbom requirements.lock``. Licences are those that the installed packages state.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from email.message import Message


def document(lock: Path) -> dict[str, Any]:
    """The bill of a lock file; the same lock gives the same document.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lock"
    ...     _ = path.write_text("# a comment\\nPyYAML==6.0.2\\n")
    ...     document(path)["components"][0]["purl"]
    'pkg:pypi/pyyaml@6.0.2'
    """
    from flows.installation import lock_lines

    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "softad", "name": "softad", "version": version("softad"),
                          "licenses": [{"license": {"id": "Apache-2.0"}}]},
        },
        "components": [_component(Requirement(line)) for line in lock_lines(lock)],
    }  # fmt: skip


def _component(one: Requirement) -> dict[str, Any]:
    name = canonicalize_name(one.name)
    exact = [part.version for part in one.specifier if part.operator == "=="]
    if not exact:
        raise ValueError(f"{one}: a lock names one version of each package, with ==")
    address = f"pkg:pypi/{name}@{exact[0]}"
    found: dict[str, Any] = {"type": "library", "bom-ref": address, "name": name, "version": exact[0], "purl": address}
    licence = _licence(one.name)
    return found | ({"licenses": [licence]} if licence else {})


def _licence(name: str) -> dict[str, Any] | None:
    try:
        about = cast("Message", metadata(name))
    except PackageNotFoundError:
        return None
    if expression := about.get("License-Expression"):
        return {"expression": expression}
    stated = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    text = stated[0] if stated else (about.get("License") or "").strip().split("\n", maxsplit=1)[0]
    return {"license": {"name": text}} if text else None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(Path(sys.argv[1])), indent=1, ensure_ascii=False) + "\n")
