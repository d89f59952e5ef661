"""A small autoencoder: what it was not shown it cannot reproduce. Fitted by scikit-learn, run without it.

It computes with multiples of 1/4096. Then all sums and products of a layer are exact in 64 bits, in whatever order a
matrix product takes them: what a row gets does not depend on the rows around it nor on who computes it, to the last
bit, and any fast product can be used. (Values up to 10, weights up to 2,000 and a hundred features need 45 of the 53
bits.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._coder import FARTHEST, STEPS, coder
from mllib.errors import BadArtifact

HIDDEN = (32, 8, 32)
EPOCHS = 25
MIN_SCALE = 0.05
"""The least standard deviation: figures that hardly ever change would be divided by almost nothing."""

_MAX_WEIGHT = 2000.0
_BLOCK = 512  # rows at a time: they stay in the processor's cache


class Autoencoder:
    """``arrays``: ``mean`` and ``scale`` of the features, and weight and bias of each layer.

    Raises BadArtifact when these are not arrays of an autoencoder over ``n_features`` features.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, n_features: int) -> None:
        sizes = (n_features, *HIDDEN, n_features)
        shapes: dict[str, tuple[int, ...]] = {"mean": (n_features,), "scale": (n_features,)}
        for layer, (inside, outside) in enumerate(pairwise(sizes)):
            shapes |= {f"weight{layer}": (inside, outside), f"bias{layer}": (outside,)}
        for name, shape in shapes.items():
            values = arrays.get(name)
            if values is None or values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
                raise _unusable(name)
            if name.startswith(("weight", "bias")) and (np.abs(values) > _MAX_WEIGHT).any():
                raise _unusable(name)
        if (arrays["scale"] < np.float32(MIN_SCALE)).any():
            raise _unusable("scale")
        self.arrays = {name: arrays[name] for name in shapes}
        self._layers = [
            (_rounded(arrays[f"weight{layer}"].astype(np.float64)), _rounded(arrays[f"bias{layer}"].astype(np.float64)))
            for layer in range(len(sizes) - 1)
        ]
        self._compiled = coder(arrays["mean"], arrays["scale"], self._layers)

    def standardised(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, n_features): standard deviations from the mean, at most FARTHEST."""
        return _standardised(features, self.arrays["mean"], self.arrays["scale"])

    def errors(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, n_features): how far each reproduced feature is off. A row's do not depend on the rows around.

        Of wider rows the first columns are taken, here and in ``total_errors``.
        """
        errors = np.empty((len(features), len(self.arrays["mean"])), dtype=np.float32)
        if self._compiled is not None:
            self._compiled(features, errors)
        else:
            for block in _blocks(len(features)):
                errors[block] = self.errors_in_numpy(features[block])
        return errors

    def total_errors(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n,): the sum of each row's errors, of which none is kept."""
        if self._compiled is not None:
            return self._compiled(features, None)
        total = np.empty(len(features))
        for block in _blocks(len(features)):
            total[block] = self.errors_in_numpy(features[block]).sum(axis=1)
        return total

    def errors_in_numpy(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``errors`` without a compiler, of a few rows, before they are rounded to 32 bits."""
        features = features[:, : len(self.arrays["mean"])]
        standard = _rounded(self.standardised(features).astype(np.float64))
        values = standard
        for weight, bias in self._layers[:-1]:
            values = values @ weight
            values += bias
            values = _rounded(np.tanh(values, out=values))
        weight, bias = self._layers[-1]
        values = values @ weight
        values += bias
        values -= standard
        errors: NDArray[np.float64] = np.abs(values, out=values)
        return errors


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, rows, _BLOCK))


def fit_autoencoder(features: NDArray[np.float32], *, seed: int, epochs: int = EPOCHS) -> Autoencoder:
    """An autoencoder of these rows, shape (n, n_features)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.maximum(features.std(axis=0, dtype=np.float64), MIN_SCALE).astype(np.float32)
    standard = _standardised(features, mean, scale)
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        activation="tanh",
        max_iter=epochs,
        batch_size=min(128, len(features)),
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is all it is given
        network.fit(standard, standard)
    arrays = {"mean": mean, "scale": scale}
    for layer, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        arrays |= {f"weight{layer}": weight.astype(np.float32), f"bias{layer}": bias.astype(np.float32)}
    return Autoencoder(arrays, n_features=features.shape[1])


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest multiples of 1 / STEPS, in place."""
    values *= STEPS
    np.rint(values, out=values)
    values /= STEPS
    return values


def _standardised(
    features: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    standard: NDArray[np.float32] = np.clip((features - mean) / scale, -FARTHEST, FARTHEST)
    return standard


def _unusable(name: str) -> BadArtifact:
    return BadArtifact(
        f"The stored autoencoder's {name!r} cannot be used. Roll back to another version, or train again."
    )
