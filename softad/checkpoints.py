"""A training that can be taken up again: weights and optimiser state as safetensors, everything else as JSON.

One file, replaced as a whole after each epoch, so that a reader or a crash sees one epoch or the next, never a
part. No pickle is written or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on with the same bits.

    Attributes
    ----------
    weights: of the model, by name.
    best: of the best epoch, where early stopping keeps it; else empty.
    optimizer: the optimiser's state, as its ``state_dict()`` gives it: "state", "param_groups", and tensors by name.
    progress: what the loop itself counts, JSON-able.
    identity: what the training was started with, JSON-able; another training cannot take it up.

    >>> kept = Checkpoint({"w": torch.ones(2)}, {}, {"state": {}, "param_groups": []}, {"epoch": 3}, {"seed": 0})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(Path(folder) / "training.ckpt", kept)
    ...     read_checkpoint(Path(folder) / "training.ckpt").progress
    {'epoch': 3}
    """

    weights: State
    best: State
    optimizer: dict[str, Any]
    progress: dict[str, Any]
    identity: dict[str, Any]


def copy_state(model: nn.Module) -> State:
    """The model's weights and buffers, copied to the CPU.

    >>> list(copy_state(nn.Linear(2, 1)))
    ['weight', 'bias']
    """
    return {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically.

    Raises
    ------
    ValueError: the optimiser keeps something that is neither a tensor nor plain data.
    OSError: the disk does not take it; the checkpoint that was there before is untouched.
    """
    tensors: State = {f"weights/{name}": value for name, value in checkpoint.weights.items()}
    tensors |= {f"best/{name}": value for name, value in checkpoint.best.items()}
    slots: dict[str, dict[str, Any]] = {}
    for index, slot in checkpoint.optimizer["state"].items():
        slots[str(index)] = {}
        for key, value in slot.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach().cpu().clone().contiguous()
            else:
                slots[str(index)][key] = value
    for name, value in checkpoint.optimizer.items():
        if isinstance(value, Tensor):
            tensors[f"of optimizer/{name}"] = value.detach().cpu().clone().contiguous()
    document = {
        "slots": slots,
        "groups": checkpoint.optimizer["param_groups"],
        "progress": checkpoint.progress,
        "identity": checkpoint.identity,
    }
    try:
        text = json.dumps(document)
    except TypeError as error:
        raise ValueError(f"optimizer: its state cannot be kept ({error}); allowed: tensors and plain data") from error
    replace_file(path, save(tensors, metadata={"training": text}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    ValueError: the file is no checkpoint, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            document = json.loads(handle.metadata()["training"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
        slots = {int(index): dict(slot) for index, slot in document["slots"].items()}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/", 2)
                slots[int(index)][key] = value
        return Checkpoint(
            weights=_part(tensors, "weights/"),
            best=_part(tensors, "best/"),
            optimizer={"state": slots, "param_groups": document["groups"], **_part(tensors, "of optimizer/")},
            progress=document["progress"],
            identity=document["identity"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: this is no checkpoint, or it is damaged ({error}); delete it to begin anew"
        ) from error


def check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another training.

    >>> check_identity(Path("training.ckpt"), {"seed": 0}, {"seed": 0})

    Raises
    ------
    ValueError: naming what differs.
    """
    wanted = json.loads(json.dumps(wanted))
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        raise ValueError(
            f"{path}: the checkpoint belongs to another training ({', '.join(differing)} differ); "
            "delete it, or name another path"
        )


def digest_of(*tensors: Tensor) -> str:
    """Hex digest of tensors' shapes, types and bytes.

    >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2)) != digest_of(torch.zeros(1, 2))
    True
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder) / "a" / "b", b"content")
    ...     (Path(folder) / "a" / "b").read_bytes()
    b'content'

    Raises
    ------
    OSError: the disk does not take it; a file that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _part(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
