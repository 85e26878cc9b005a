"""Preprocessing: scales, gaps and words as a plant exports them, and pictures from bytes."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from softad.images import decode_image
from softad.preprocessing import Preprocessor


def png(colour: tuple[int, int, int] | int = (255, 0, 0), size: tuple[int, int] = (20, 10), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def fit(frame: pd.DataFrame, **columns) -> Preprocessor:
    return Preprocessor.fit(frame, **{"numeric": [], "categorical": [], **columns})


numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**7), 10**7).map(float), st.none())


@given(st.lists(numbers, min_size=1, max_size=30), st.lists(numbers, min_size=1, max_size=30))
@settings(max_examples=300)
def test_any_numbers_become_finite_features_of_ordinary_size(train: list, later: list) -> None:
    frame = pd.DataFrame({"x": pd.Series(train, dtype="float64")})
    kept = fit(frame, numeric=["x"])
    for part in (frame, pd.DataFrame({"x": pd.Series(later, dtype="float64")})):
        features = kept.transform(part)
        assert features.dtype == np.float32
        assert features.shape == (len(part), *kept.input_shape)
        assert np.isfinite(features).all()
    assert np.abs(kept.transform(frame)[:, 0]).max() < 10.0
    again = Preprocessor.from_dict(json.loads(json.dumps(kept.to_dict())))
    assert again == kept


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e7, 0.0), (1e-9, 0.0), (1.0, 1e7), (1e7, 1e9)])
def test_the_unit_of_a_measurement_does_not_matter(unit: float, offset: float) -> None:
    values = np.random.default_rng(0).normal(size=500)
    plain = fit(pd.DataFrame({"x": values}), numeric=["x"]).transform(pd.DataFrame({"x": values}))
    frame = pd.DataFrame({"x": values * unit + offset})
    scaled = fit(frame, numeric=["x"]).transform(frame)
    np.testing.assert_allclose(scaled, plain, atol=1e-5)
    assert plain.mean() == pytest.approx(0.0, abs=1e-5)
    assert plain.std() == pytest.approx(1.0, abs=1e-5)


def test_an_outlier_neither_dominates_nor_hides_the_rest() -> None:
    values = np.concatenate([np.linspace(0.0, 1.0, 99), [1e9]])
    frame = pd.DataFrame({"x": values})
    features = fit(frame, numeric=["x"]).transform(frame)[:, 0]
    assert np.ptp(features[:99]) > 0.5
    assert features[99] < 12.0
    assert (np.diff(features) > 0).all()


def test_missing_numbers_are_the_median_and_say_so() -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan, 3.0, np.inf, 5.0], "y": [1.0, 2.0, 3.0, 4.0, 5.0]})
    kept = fit(frame, numeric=["x", "y"])
    features = kept.transform(frame)
    assert kept.input_shape == (3,)
    assert features[1, 0] == features[2, 0] == features[3, 0]
    assert features[:, 1].tolist() == [0, 1, 0, 1, 0]
    later = kept.transform(pd.DataFrame({"x": [3.0], "y": [np.nan]}))
    assert later[0, 2] == features[2, 2]


def test_columns_that_say_nothing_become_zero() -> None:
    frame = pd.DataFrame(
        {"constant": [5.0] * 4, "empty": [np.nan] * 4, "rounding": 0.3 + np.array([0, 1, 2, 0]) * 5e-17}
    )
    kept = fit(frame, numeric=["constant", "empty", "rounding"])
    later = pd.DataFrame({"constant": [5.0, 7.0], "empty": [np.nan, 3.0], "rounding": [0.3, 0.4]})
    assert not kept.transform(later).any()
    said = kept.warnings(later)
    assert said[0] == ""
    assert "constant: 7 is outside the training range, 5 to 5" in said[1]
    assert "empty: had no value in training, not used" in said[1]


def test_words_and_words_never_seen() -> None:
    frame = pd.DataFrame({"m": ["b", "a", "b", None]})
    kept = fit(frame, categorical=["m"])
    np.testing.assert_array_equal(
        kept.transform(pd.DataFrame({"m": ["b", "a", None, "M99", "b"]})),
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]],
    )
    assert kept.warnings(pd.DataFrame({"m": ["b", None, "M99"]})) == ["", "", "m: M99 was never seen in training"]
    without_gap = fit(pd.DataFrame({"m": ["b", "a"]}), categorical=["m"])
    np.testing.assert_array_equal(without_gap.transform(pd.DataFrame({"m": [None, "a"]})), [[0, 0, 1], [1, 0, 0]])
    assert without_gap.warnings(pd.DataFrame({"m": [None]})) == ["m: missing, and never missing in training"]


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_words_mean_the_same_in_every_type_of_column(dtype: str) -> None:
    words = pd.DataFrame({"m": pd.Series(["x", "y", None, "x"], dtype="object")})
    kept = fit(words, categorical=["m"])
    other = words.astype({"m": dtype})
    np.testing.assert_array_equal(kept.transform(other), kept.transform(words))
    assert fit(other, categorical=["m"]) == kept


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "Float32", "object", "str", "bool", "uint8"])
def test_numbers_mean_the_same_in_every_type_of_column(dtype: str) -> None:
    frame = pd.DataFrame({"x": [0, 1, 1, 0]})
    kept = fit(frame, numeric=["x"], categorical=["x"])
    other = frame.astype({"x": dtype})
    if dtype == "bool":  # as a word, True is not 1
        kept = fit(frame, numeric=["x"])
    np.testing.assert_array_equal(kept.transform(other), kept.transform(frame))
    assert kept.warnings(other) == [""] * 4


def test_whole_numbers_stay_the_same_word_when_a_gap_makes_them_floats() -> None:
    kept = fit(pd.DataFrame({"line": [1, 2, 2]}), categorical=["line"])
    assert kept.warnings(pd.DataFrame({"line": [1.0, 2.0]})) == ["", ""]


def test_many_words_are_bounded_and_the_rest_is_known_all_the_same() -> None:
    frame = pd.DataFrame({"lot": [f"L{number:03}" for number in range(300)] + ["L005"] * 9})
    kept = fit(frame, categorical=["lot"])
    assert kept.input_shape == (101,)
    assert kept.transform(frame)[5].argmax() == 0
    assert kept.transform(frame)[299].argmax() == 100
    assert not any(kept.warnings(frame))


def test_warnings_join_all_that_is_unusual() -> None:
    frame = pd.DataFrame({"x1": np.linspace(0, 10, 50), "x2": np.arange(50.0), "m": ["M1", "M2"] * 25})
    kept = fit(frame, numeric=["x1", "x2"], categorical=["m"])
    later = pd.DataFrame({"x1": [10.5, 9.1e9, -np.inf], "x2": [5.0, np.nan, 70.0], "m": ["M1", "M99", "M2"]})
    assert kept.warnings(later) == [
        "",
        "x1: 9.1e+09 is outside the training range, 0 to 10; x2: missing, and never missing in training; "
        "m: M99 was never seen in training",
        "x1: -inf is outside the training range, 0 to 10; x2: 70 is outside the training range, 0 to 49",
    ]


def test_columns_beside_are_ignored_and_the_order_of_columns_and_index_does_not_matter() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "m": ["a", "b", "a"]}, index=[7, 7, 3])
    kept = fit(frame, numeric=["x"], categorical=["m"])
    other = frame.assign(z=1).loc[:, ["z", "m", "x"]].reset_index(drop=True)
    np.testing.assert_array_equal(kept.transform(other), kept.transform(frame))
    assert kept.transform(frame.iloc[:0]).shape == (0, 4)


def test_pictures_are_resized_channels() -> None:
    files = {"red": png((255, 0, 0)), "grey": png(128, mode="L"), "clear": png((0, 0, 255, 10), mode="RGBA")}
    kept = fit(pd.DataFrame({"picture": ["red"]}), image="picture", image_size=16)
    features = kept.transform(pd.DataFrame({"picture": ["red", "grey", "clear"]}), files.__getitem__)
    assert features.shape == (3, 3, 16, 16)
    assert kept.input_shape == (3, 16, 16)
    np.testing.assert_allclose(features[0].mean(axis=(1, 2)), [2.0, -2.0, -2.0])
    np.testing.assert_allclose(features[1], (128 / 255 - 0.5) / 0.25, atol=1e-6)
    np.testing.assert_allclose(features[2].mean(axis=(1, 2)), [-2.0, -2.0, 2.0])


def test_sixteen_bit_pictures_keep_their_range() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)).save(buffer, "PNG")
    picture = decode_image("x", buffer.getvalue(), 8)
    assert picture.min() < -1.5
    assert picture.max() > 1.5


def test_a_picture_with_columns_beside_is_one_flat_row() -> None:
    frame = pd.DataFrame({"picture": ["a", "b"], "x": [1.0, 2.0]})
    kept = fit(frame, numeric=["x"], image="picture", image_size=8)
    features = kept.transform(frame, lambda name: png())
    assert features.shape == (2, 3 * 64 + 1)
    assert (kept.image_shape, kept.input_shape) == ((3, 8, 8), (193,))
    np.testing.assert_array_equal(features[:, :192].reshape(2, 3, 8, 8)[0], decode_image("a", png(), 8))


def test_bytes_in_the_column_are_pictures_already() -> None:
    kept = fit(pd.DataFrame({"picture": ["a"]}), image="picture", image_size=8)
    assert kept.transform(pd.DataFrame({"picture": [png()]})).shape == (1, 3, 8, 8)


def noise(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", png()[:40], noise("PNG")[:2000], noise("JPEG")[:900], b"GIF89a" + b"\0" * 40],
    ids=["empty", "text", "header only", "cut png", "cut jpeg", "empty gif"],
)
def test_a_broken_picture_is_named(content: bytes) -> None:
    kept = fit(pd.DataFrame({"picture": ["a"]}), image="picture", image_size=8)
    with pytest.raises(ValueError, match=r"the image 'parts/7\.png' cannot be read"):
        kept.transform(pd.DataFrame({"picture": ["parts/7.png"]}), lambda name: content)


def test_a_missing_picture_is_named_with_its_row() -> None:
    kept = fit(pd.DataFrame({"picture": ["a"]}), image="picture", image_size=8)
    with pytest.raises(ValueError, match="row 1: the image 'b' is not there"):
        kept.transform(pd.DataFrame({"picture": ["a", "b"]}), {"a": png()}.__getitem__)
    with pytest.raises(ValueError, match="row 0 names no image"):
        kept.transform(pd.DataFrame({"picture": [None]}), lambda name: png())
    with pytest.raises(ValueError, match="images: None, and row 0 names 'a'"):
        kept.transform(pd.DataFrame({"picture": ["a"]}))


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        ({"x": []}, {"numeric": ["x"]}, "frame: 0 rows"),
        ({"x": [1.0]}, {}, "numeric, categorical, image: all empty"),
        ({"x": [1.0]}, {"numeric": ["y"]}, "y: the column is missing; here are x"),
        ({"x": [1.0]}, {"categorical": ["y"]}, "y: the column is missing; here are x"),
        ({"x": ["1", "2", "abc"]}, {"numeric": ["x"]}, "x: 'abc' in row 2; allowed: a number, or nothing"),
        ({"x": ["a"]}, {"image": "x", "image_size": 4}, "image_size: 4; allowed: 8 to 512"),
    ],
)
def test_columns_that_do_not_fit_are_named(frame, columns, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(pd.DataFrame(frame), **columns)


def test_a_column_that_is_there_twice_is_refused() -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=["x", "x"])
    with pytest.raises(ValueError, match="x: the column occurs 2 times"):
        fit(frame, numeric=["x"])


def test_a_document_of_another_version_is_refused() -> None:
    document = fit(pd.DataFrame({"x": [1.0]}), numeric=["x"]).to_dict()
    with pytest.raises(ValueError, match="preprocessor: format 99; allowed: 1"):
        Preprocessor.from_dict({**document, "format": 99})
    with pytest.raises(ValueError, match="preprocessor: the document does not fit"):
        Preprocessor.from_dict({"format": 1})


def test_codes_name_the_same_words_as_the_features_of_0_and_1() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "m": ["a", "b", "a", None]})
    new = pd.DataFrame({"x": [1.0, 2.0, 3.0], "m": ["b", "never", None]})
    ones = Preprocessor.fit(frame, numeric=["x"], categorical=["m"])
    coded = Preprocessor.fit(frame, numeric=["x"], categorical=["m"], coded=True)
    assert coded.categories == ((1, 3),)
    assert ones.categories == ()
    assert coded.input_shape == (2,)
    assert coded.transform(new)[:, 1].tolist() == ones.transform(new)[:, 1:].argmax(axis=1).tolist() == [1, 3, 2]
    again = Preprocessor.from_dict(json.loads(json.dumps(coded.to_dict())))
    assert again == coded
    assert ones.to_dict()["format"] != coded.to_dict()["format"], "an older program would take codes for measurements"


def test_codes_have_room_for_thousands_of_words() -> None:
    words = [f"tool {number:04d}" for number in range(3_000)]
    coded = Preprocessor.fit(pd.DataFrame({"tool": words}), numeric=[], categorical=["tool"], coded=True)
    assert coded.categories == ((0, 3_000),)
    assert coded.transform(pd.DataFrame({"tool": words})).ravel().tolist() == list(range(3_000))


def test_codes_are_for_tables() -> None:
    with pytest.raises(ValueError, match="coded: True with image 'picture'"):
        Preprocessor.fit(pd.DataFrame({"picture": ["a"]}), numeric=[], categorical=[], image="picture", coded=True)
