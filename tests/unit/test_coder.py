"""The autoencoder in both versions: they give the same bits."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest

from mllib.detectors._autoencoder import HIDDEN, MIN_SCALE, Autoencoder
from mllib.detectors._coder import MOST_FEATURES, STEPS, coder
from tests.guarded_memory import at_the_end_of_memory


def autoencoder(features: int, *, weights: float = 1.0) -> Autoencoder:
    rng = np.random.default_rng(features)
    arrays = {
        "mean": rng.normal(size=features).astype(np.float32),
        "scale": np.maximum(rng.random(features), MIN_SCALE).astype(np.float32),
    }
    for layer, (inside, outside) in enumerate(pairwise((features, *HIDDEN, features))):
        arrays[f"weight{layer}"] = rng.uniform(-weights, weights, (inside, outside)).astype(np.float32)
        arrays[f"bias{layer}"] = rng.uniform(-weights, weights, outside).astype(np.float32)
    return Autoencoder(arrays, n_features=features)


def rows(count: int, features: int) -> np.ndarray:
    return np.random.default_rng(count).normal(scale=2, size=(count, features)).astype(np.float32)


def agree(model: Autoencoder, features: np.ndarray) -> None:
    slow = model.errors_in_numpy(features)
    assert model.errors(features).tobytes() == slow.astype(np.float32).tobytes()
    assert model.total_errors(features).tobytes() == slow.sum(axis=1).tobytes()


def test_where_there_is_a_compiler_it_was_used() -> None:
    assert autoencoder(8)._compiled or not any(map(shutil.which, ("cc", "gcc", "clang")))


@pytest.mark.parametrize("features", [1, 7, 8, 9, 78, MOST_FEATURES, MOST_FEATURES + 1])
def test_both_versions_give_the_same_bits(features: int) -> None:
    model = autoencoder(features)
    for count in (0, 1, 3, 31, 32, 33, 1_000):
        agree(model, rows(count, features))


def test_both_give_the_same_bits_for_weights_as_large_as_they_may_be() -> None:
    agree(autoencoder(78, weights=2_000), rows(100, 78))


def with_all(layer: int, weight: float, bias: float, features: int = 78) -> Autoencoder:
    """Every weight and bias of one layer is this great, with any sign. Those of the others are small."""
    arrays = autoencoder(features, weights=0.1).arrays
    signs = np.random.default_rng(layer).choice(np.array([-1, 1], np.float32), arrays[f"weight{layer}"].shape)
    signs[:, 0], signs[:, 1] = 1, -1
    return Autoencoder(
        {**arrays, f"weight{layer}": signs * np.float32(weight), f"bias{layer}": signs[0] * np.float32(bias)},
        n_features=features,
    )


@pytest.mark.parametrize(
    ("layer", "weight", "bias"),
    # Of the first layer a weight is below 8, of the others a sum over 32 or 8 inputs below 128, at the end below 118.
    [(0, 7.999, 0), (0, 7.999, 2), (1, 3.9, 3), (2, 7.999, 60), (3, 3.6, 2.5)],
)
def test_both_give_the_same_bits_up_to_where_sums_no_longer_fit(layer: int, weight: float, bias: float) -> None:
    model, features = with_all(layer, weight, bias), rows(99, 78)
    assert (model._compiled is None) == (autoencoder(78)._compiled is None)
    features[::3] *= 100  # all values as far out as can be, with any sign
    features[3:9] = 1e9
    features[9:15] = -1e9
    features[15:23] = model.arrays["mean"] + np.float32(7.9) * model.arrays["scale"]  # small ones, of great sums
    agree(model, features)


@pytest.mark.parametrize(("layer", "weight", "bias"), [(0, 8.0, 0), (1, 4.01, 0), (2, 1, 121), (3, 3.7, 0), (0, 7, 34)])
def test_weights_whose_sums_do_not_fit_are_left_to_numpy(layer: int, weight: float, bias: float) -> None:
    model = with_all(layer, weight, bias)
    assert model._compiled is None
    agree(model, rows(40, 78))


def test_of_wider_rows_the_first_columns_are_taken() -> None:
    model, wide = autoencoder(10), rows(50, 14)
    assert model.errors(wide).tobytes() == model.errors(wide[:, :10].copy()).tobytes()
    assert model.total_errors(wide).tobytes() == model.total_errors(wide[:, :10]).tobytes()


def test_values_far_out_and_no_numbers_at_all_are_the_same_in_both() -> None:
    features = rows(40, 12)
    features[1, 3], features[2, 4], features[3, 5], features[4, 6] = np.inf, -np.inf, 3e38, 1e-45
    agree(autoencoder(12), features)
    features[7, 2] = np.nan
    model = autoencoder(12)
    found = model.errors(features)
    assert np.isnan(found[7]).all()
    assert np.isnan(model.total_errors(features)[7])
    assert np.isfinite(np.delete(found, 7, axis=0)).all()
    assert np.array_equal(found, model.errors_in_numpy(features).astype(np.float32), equal_nan=True)


def test_a_row_does_not_depend_on_the_rows_around_it() -> None:
    model, features = autoencoder(78), rows(100, 78)
    whole = model.total_errors(features)
    assert [model.total_errors(features[place : place + 1])[0] for place in range(100)] == whole.tolist()


def test_the_hyperbolic_tangent_out_of_the_table_is_that_of_numpy_at_each_of_its_steps() -> None:
    # Just before and at each of the 4,096 places where its rounded value goes up, with both signs.
    half = np.arctanh((np.arange(STEPS) + 0.5) / STEPS) * STEPS**2
    near = (np.rint(half)[:, None] + np.arange(-2, 3)).ravel()
    arguments = np.concatenate([-near, near, [0.0, STEPS**2 * 6.0, -(STEPS**2) * 6.0]]) / STEPS**2
    # As biases of the last hidden layer, which the layer after it hands through.
    units = HIDDEN[-1]
    layers = [(np.zeros(shape), np.zeros(shape[1])) for shape in pairwise((units, *HIDDEN, units))]
    layers[-1][0][:] = np.eye(units)
    for bias in np.resize(arguments, (len(arguments) // units + 1, units)):
        layers[-2][1][:] = bias
        run = coder(np.zeros(units, np.float32), np.ones(units, np.float32), layers)
        if run is None:
            return
        found = np.empty((1, units), np.float32)
        run(np.zeros((1, units), np.float32), found)
        assert found[0].tolist() == (np.abs(np.rint(np.tanh(bias) * STEPS)) / STEPS).tolist()


@pytest.mark.parametrize("features", [1, 7, 8, 9, 78])
def test_nothing_behind_the_rows_is_read(features: int) -> None:
    model = autoencoder(features)
    for count in (1, 3, 33):
        given = rows(count, features)
        assert model.total_errors(at_the_end_of_memory(given)).tobytes() == model.total_errors(given).tobytes()


def test_compiled_code_is_given_no_place_that_it_would_overrun() -> None:
    model = autoencoder(10)
    run = model._compiled
    if run is None:
        return
    with pytest.raises(ValueError, match="10 features are needed"):
        run(rows(5, 9), None)
    with pytest.raises(ValueError, match="10 features are needed"):
        run(rows(5, 10).ravel(), None)
    for place in (np.empty((4, 10), np.float32), np.empty((5, 10)), np.empty((10, 5), np.float32).T):
        with pytest.raises(ValueError, match="no place for the errors of 5 rows"):
            run(rows(5, 10), place)
