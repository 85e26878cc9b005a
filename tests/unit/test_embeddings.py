"""Categories as learnt vectors: which vector a code gets, what is trained, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softad.embeddings import CategoryEmbedding, embedding_width
from softad.models import build_model, describe
from softad.training import fit, outputs_of


def test_codes_choose_vectors_and_other_columns_stay_in_order() -> None:
    embed = CategoryEmbedding(4, ((2, 3), (0, 5)), widths=(2, 4))
    rows = torch.tensor([[4.0, 0.1, 2.0, 0.2], [0.0, 0.3, 1.0, 0.4]])
    out = embed(rows)
    assert out.shape == (2, embed.output_width) == (2, 8)
    assert torch.equal(out[:, :2], rows[:, [1, 3]])
    assert torch.equal(out[:, 2:4], embed.tables[0].weight[[2, 1]])
    assert torch.equal(out[:, 4:], embed.tables[1].weight[[4, 0]])


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_every_number_that_is_no_code_takes_the_reserved_vector(code: float) -> None:
    embed = CategoryEmbedding(2, ((1, 3),), widths=2)
    out = embed(torch.tensor([[0.5, code]]))[0, 1:]
    wanted = int(code) if code in (0.0, 1.0, 2.0) else 3
    assert torch.equal(out, embed.tables[0].weight[wanted])


def test_the_reserved_vector_is_0_at_first_and_no_seen_code_moves_it() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, 300)
    x = np.stack([rng.normal(size=300), codes], axis=1).astype(np.float32)
    network = build_model("mlp", inputs=(2,), outputs=2, hidden=(8,), categories=[(1, 6)], embedding=3, seed=0)
    table = network[0].tables[0]
    before = table.weight.detach().clone()
    assert table.weight[6].tolist() == [0.0, 0.0, 0.0]
    fit(network, x, (codes % 2).astype(int), epochs=25, learning_rate=0.02, batch_size=64)
    assert table.weight[6].tolist() == [0.0, 0.0, 0.0]
    assert not torch.equal(table.weight[:6], before[:6])
    # Odd and even codes cannot be told apart by a threshold or two on the number itself.
    assert (outputs_of(network, x).argmax(1).numpy() == codes % 2).mean() > 0.98
    unseen = outputs_of(network, np.array([[0.0, 6.0], [0.0, 77.0], [0.0, -1.0], [0.0, 0.5]], np.float32))
    assert torch.equal(unseen[1:], unseen[:1].expand(3, 2))


def test_a_linear_model_over_embeddings_and_describe() -> None:
    network = build_model("linear", inputs=(3,), outputs=2, categories=[(0, 4)], embedding=2, seed=1)
    assert describe(network).parameters == 5 * 2 + (2 + 2) * 2 + 2
    assert torch.equal(
        network[0].tables[0].weight,
        build_model("linear", inputs=(3,), outputs=2, categories=[(0, 4)], embedding=2, seed=1)[0].tables[0].weight,
    )
    # As JSON gives it back.
    assert build_model("mlp", inputs=(3,), outputs=2, categories=[[0, 4], [2, 9]])(torch.zeros(5, 3)).shape == (5, 2)


def test_without_categories_a_network_is_as_before() -> None:
    plain = build_model("mlp", inputs=(3,), outputs=2, seed=0)
    assert [type(layer).__name__ for layer in plain] == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


@given(st.integers(1, 2**24))
def test_the_automatic_width_is_bounded(cardinality: int) -> None:
    assert 1 <= embedding_width(cardinality) <= 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [(3, 4)]}, r"categories: columns \[3\]; allowed: different ones in \[0, 3\)"),
        ({"categories": [(-1, 4)]}, r"categories: columns \[-1\]"),
        ({"categories": [(1, 4), (1, 5)]}, r"categories: columns \[1, 1\]"),
        ({"categories": [(1, 0)]}, r"categories: cardinalities \[0\]; allowed: 1 to 16777216"),
        ({"categories": [(1, 2**24 + 1)]}, "categories: cardinalities"),
        ({"categories": [(1,)]}, r"categories: .*; allowed: \(column, cardinality\)"),
        ({"embedding": 0}, "embedding: 0; allowed"),
        ({"embedding": (1, 2)}, r"embedding: \(1, 2\); allowed: .* one for each of 1 columns"),
        ({"embedding": "wide"}, "embedding: 'wide'; allowed"),
        ({"name": "cnn", "inputs": (3, 8, 8)}, "categories: .* with name 'cnn'.*; allowed: none"),
        ({"name": "mlp", "inputs": (3, 8, 8)}, "categories: .*; allowed: none, save for linear and mlp on a table"),
        ({"name": "os:getcwd"}, "categories: .* with name 'os:getcwd'"),
    ],
)
def test_what_does_not_fit_is_named(change, message: str) -> None:
    arguments = {"name": "mlp", "inputs": (3,), "categories": [(1, 4)], **change}
    with pytest.raises(ValueError, match=f"^{message}"):
        build_model(arguments.pop("name"), outputs=2, **arguments)
