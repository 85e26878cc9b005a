"""A bundle as one ONNX graph, from raw columns to calibrated answers, for machines without torch.

Needs onnx, onnxruntime and onnxscript (``pip install softad[export]``).
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from softad.columns import LINEAR, numbers_of, words_of
from softad.contract import contract_of
from softad.images import ImageSource, read_images
from softad.model_bundle import ModelBundle

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

NUMBERS, WORDS, CODES, IMAGE = "numbers", "words", "codes", "image"
PROBABILITIES, VALUE = "probabilities", "value"
METADATA = "softad"
OPSET = 20
ROWS = 4096
"""Rows given to the graph at a time, as many as torch is given."""


class NotExportable(ValueError):
    """torch cannot express the network as an ONNX graph."""


class ScoringModule(nn.Module):
    """A bundle from raw columns on: preprocessing, network, temperature and scale in one module.

    Takes `numbers` (n, d), double, not finite where missing; `codes` (n, c), the places of words among those known;
    and `image` (n, 3, size, size). Gives probabilities (n, k), or values (n,) in the label's unit.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__()
        kept = bundle.preprocessor
        self.network = bundle.model
        self.regression, self.temperature = bundle.task == "regression", float(bundle.temperature)
        self.target_mean, self.target_deviation = bundle.target_scale or (0.0, 1.0)
        self.coded = kept.coded
        self.widths = [column.width for column in kept.categorical]
        self.flat = kept.image is not None and kept.table_width > 0
        # Scaled columns come first, then the indicators; `order` puts each indicator behind its column.
        order: list[int] = []
        indicated = [place for place, column in enumerate(kept.numeric) if column.indicated]
        for place, column in enumerate(kept.numeric):
            order.append(place)
            if column.indicated:
                order.append(len(kept.numeric) + indicated.index(place))
        spread = [column.spread or 1.0 for column in kept.numeric]
        self.constants: dict[str, Tensor] = {
            "median": torch.tensor([column.median for column in kept.numeric], dtype=torch.float64),
            "spread": torch.tensor(spread, dtype=torch.float64),
            "middle": torch.tensor(
                [column.median / wide for column, wide in zip(kept.numeric, spread, strict=True)], dtype=torch.float64
            ),
            "centre": torch.tensor([column.centre for column in kept.numeric], dtype=torch.float64),
            # A column that was constant in training says nothing: divided by infinity it is 0.
            "scale": torch.tensor(
                [column.scale if column.spread else float("inf") for column in kept.numeric], dtype=torch.float64
            ),
            "indicated": torch.tensor(indicated, dtype=torch.int64),
            "order": torch.tensor(order, dtype=torch.int64),
        }
        for name, value in self.constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, numbers: Tensor | None = None, codes: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        """Probabilities, or values."""
        parts: list[Tensor] = []
        if numbers is not None:
            parts.append(self._scaled(numbers))
        if codes is not None:
            parts.extend(self._encoded(codes))
        if image is not None and self.flat:
            parts.insert(0, image.flatten(1))
        rows = image if image is not None and not self.flat else torch.cat(parts, dim=1)
        outputs: Tensor = self.network(rows)
        if self.regression:
            return outputs.double().flatten() * self.target_deviation + self.target_mean
        return torch.softmax(outputs / self.temperature, dim=1)

    def _scaled(self, numbers: Tensor) -> Tensor:
        part: dict[str, Tensor] = {name: getattr(self, name) for name in self.constants}
        missing = ~torch.isfinite(numbers)
        filled = torch.where(missing, part["median"], numbers)
        away = torch.clamp(filled / part["spread"] - part["middle"], -1e300, 1e300)
        size = torch.abs(away)
        far = torch.sign(away) * (LINEAR + torch.log1p(torch.clamp(size - LINEAR, min=0.0)))
        scaled = (torch.where(size <= LINEAR, away, far) - part["centre"]) / part["scale"]
        if len(part["indicated"]):
            both = torch.cat([scaled, missing[:, part["indicated"]].double()], dim=1)
            scaled = both[:, part["order"]]
        return scaled.to(torch.float32)

    def _encoded(self, codes: Tensor) -> list[Tensor]:
        if self.coded:
            return [codes.float()]
        return [(codes[:, place : place + 1] == torch.arange(width)).float() for place, width in enumerate(self.widths)]


def raw_inputs(bundle: ModelBundle, frame: pd.DataFrame, images: ImageSource | None = None) -> dict[str, Any]:
    """A frame as the graph's inputs: `numbers` double, `words` text ("" where missing), `image` single precision.

    Raises
    ------
    ValueError: a column is missing, a numeric one holds a word, or an image is missing or broken.
    """
    kept = bundle.preprocessor
    given: dict[str, Any] = {}
    if kept.numeric:
        given[NUMBERS] = np.stack([numbers_of(frame, column.name) for column in kept.numeric], axis=1)
    if kept.categorical:
        texts = [np.where([w is None for w in words], "", words) for words in _words(bundle, frame)]
        given[WORDS] = np.stack(texts, axis=1).astype(object)
    if kept.image is not None:
        given[IMAGE] = read_images(frame[kept.image].tolist(), images, kept.image_size)
    return given


def to_onnx(bundle: ModelBundle, about: dict[str, str] | None = None) -> bytes:
    """The bundle as an ONNX file's content; its input contract, classes and `about` are in the file's metadata.

    Raises
    ------
    ImportError: onnx or onnxscript is not installed.
    NotExportable: torch cannot express the network.
    """
    import onnx
    import onnxscript  # noqa: F401  (torch needs it, and says so less clearly)

    module = ScoringModule(bundle).eval()
    example = _example(bundle)
    name, output = bundle.model_spec.get("name"), VALUE if bundle.task == "regression" else PROBABILITIES
    try:
        with _quiet(), torch.no_grad():
            # Dense layers do the same with all rows, so following two rows through them is exact, and takes a tenth of
            # a second; other networks are read as programs, which takes several.
            content = (_followed if name in ("linear", "mlp") else _read)(module, example, output)
    except Exception as error:  # whatever a network of the plant's own makes the exporter stumble over
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise NotExportable(f"torch cannot express the network {name!r} as an ONNX graph ({text})") from error
    graph = onnx.ModelProto()
    graph.ParseFromString(content)
    if bundle.preprocessor.categorical:
        _look_up_words(graph, bundle)
    document = {**description(bundle), **(about or {})}
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(document, ensure_ascii=False)})
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def description(bundle: ModelBundle) -> dict[str, Any]:
    """What a program must know to use the graph: inputs in order, the output, classes, temperature, contract."""
    kept = bundle.preprocessor
    inputs: dict[str, Any] = {}
    if kept.numeric:
        names = [column.name for column in kept.numeric]
        inputs[NUMBERS] = {"type": "double (rows, columns), NaN where missing", "columns": names}
    if kept.categorical:
        names = [column.name for column in kept.categorical]
        inputs[WORDS] = {"type": 'string (rows, columns), "" where missing', "columns": names}
    if kept.image is not None:
        size = kept.image_size
        inputs[IMAGE] = {
            "type": f"float (rows, 3, {size}, {size})",
            "columns": [kept.image],
            "made_by": "RGB, the whole image resized (bilinear), values of 0 to 255: value / 127.5 * 2 - 2",
        }
    output = VALUE if bundle.task == "regression" else PROBABILITIES
    return {
        "inputs": inputs, "output": output, "classes": bundle.classes, "temperature": bundle.temperature,
        "digest": bundle.digest(), "contract": contract_of(kept),
    }  # fmt: skip


class OnnxModel:
    """An exported model under onnxruntime.

    Parameters
    ----------
    content: of the file.
    threads: that onnxruntime may use; None leaves it to onnxruntime.

    Raises
    ------
    ImportError: onnxruntime is not installed.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        # It reports to its maker from the first session on; its own library looks at this when it is loaded.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.about: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])

    def run(self, given: dict[str, Any]) -> Array:
        """Probabilities (n, k), or values (n,), for what `raw_inputs` gives."""
        rows = len(next(iter(given.values())))
        parts = [
            self.session.run(None, {name: values[start : start + ROWS] for name, values in given.items()})[0]
            for start in range(0, max(rows, 1), ROWS)
        ]
        return np.concatenate(parts).astype(np.float64)


def largest_difference(
    bundle: ModelBundle, exported: OnnxModel, frame: pd.DataFrame, images: ImageSource | None = None
) -> float:
    """By how much the two differ at most: in a probability, or in a value as a share of the targets' deviation.

    Infinite where one of them gives something that is not finite.
    """
    said = bundle.predict(frame, images)
    got = exported.run(raw_inputs(bundle, frame, images))
    if said.probabilities is not None:
        apart = np.abs(said.probabilities - got)
    else:
        apart = np.abs(np.asarray(said.values) - got) / (bundle.target_scale or (0.0, 1.0))[1]
    return float(apart.max(initial=0.0)) if np.isfinite(apart).all() else float("inf")


def _followed(module: nn.Module, example: dict[str, Tensor], output: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module, (), path, kwargs=example, dynamo=False, input_names=list(example), output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in (*example, output)}, opset_version=OPSET,
        )  # fmt: skip
        return path.read_bytes()


def _read(module: nn.Module, example: dict[str, Tensor], output: str) -> bytes:
    batch = torch.export.Dim("batch")
    exported = torch.onnx.export(
        module, (), kwargs=example, dynamo=True, input_names=list(example), output_names=[output],
        dynamic_shapes={name: {0: batch} for name in example}, external_data=False, verbose=False,
        opset_version=OPSET,
    )  # fmt: skip
    if exported is None:
        raise RuntimeError("the exporter gave no graph")
    return bytes(exported.model_proto.SerializeToString())


def _words(bundle: ModelBundle, frame: pd.DataFrame) -> list[npt.NDArray[Any]]:
    return [words_of(frame, column.name) for column in bundle.preprocessor.categorical]


def _example(bundle: ModelBundle) -> dict[str, Tensor]:
    """Two rows: of one, the exporter would take its number for a constant."""
    kept = bundle.preprocessor
    example: dict[str, Tensor] = {}
    if kept.numeric:
        medians = torch.tensor([[column.median for column in kept.numeric]], dtype=torch.float64)
        example[NUMBERS] = torch.cat([medians, medians + 1.0])
    if kept.categorical:
        example[CODES] = torch.zeros(2, len(kept.categorical), dtype=torch.int64)
    if kept.image_shape is not None:
        example[IMAGE] = torch.zeros(2, *kept.image_shape)
    return example


def _look_up_words(graph: Any, bundle: ModelBundle) -> None:
    """Put a look-up of words in front, so that the graph takes text where torch takes the words' numbers."""
    from onnx import TensorProto, helper

    nodes, names = [], []
    for place, column in enumerate(bundle.preprocessor.categorical):
        table = {word: number for number, word in enumerate(column.values)}
        other = column.width - 1
        if column.missing:
            table.setdefault("", len(column.values))
        table = table or {"": other}
        word, code = f"word_{place}", f"code_{place}"
        graph.graph.initializer.append(helper.make_tensor(f"place_{place}", TensorProto.INT64, [1], [place]))
        nodes.append(helper.make_node("Gather", [WORDS, f"place_{place}"], [word], axis=1))
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [word],
                [code],
                domain="ai.onnx.ml",
                keys_strings=list(table),
                values_int64s=list(table.values()),
                default_int64=other,
            )
        )
        names.append(code)
    nodes.append(helper.make_node("Concat", names, [CODES], axis=1))
    others = [one for one in graph.graph.input if one.name != CODES]
    shape: list[str | int | None] = ["batch", len(names)]
    words = helper.make_tensor_value_info(WORDS, TensorProto.STRING, shape)
    rest = list(graph.graph.node)
    del graph.graph.input[:], graph.graph.node[:]
    graph.graph.input.extend([*others, words])
    graph.graph.node.extend([*nodes, *rest])
    graph.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that are not there and on its own future."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
