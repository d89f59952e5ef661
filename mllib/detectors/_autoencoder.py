"""A small autoencoder: what it was not shown it cannot reproduce. Fitted by scikit-learn, run by NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.errors import BadArtifact

HIDDEN = (32, 8, 32)
EPOCHS = 25
FARTHEST = 10.0
"""Standard deviations from the mean beyond which it does not matter how far."""

MIN_SCALE = 0.05
"""The least standard deviation: figures that hardly ever change would be divided by almost nothing."""


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
        if (arrays["scale"] < np.float32(MIN_SCALE)).any():
            raise _unusable("scale")
        self.arrays = {name: arrays[name] for name in shapes}
        self._layers = [(arrays[f"weight{layer}"], arrays[f"bias{layer}"]) for layer in range(len(sizes) - 1)]

    def standardised(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, n_features): standard deviations from the mean, at most FARTHEST."""
        return _standardised(features, self.arrays["mean"], self.arrays["scale"])

    def errors(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, n_features): how far each reproduced feature is off. A row's do not depend on the rows around."""
        standard = self.standardised(features)
        values = standard
        for layer, (weight, bias) in enumerate(self._layers):
            # einsum and not @: the sum of a row must not depend on how many rows there are, to the last bit
            values = np.einsum("ni,io->no", values, weight) + bias
            if layer + 1 < len(self._layers):
                values = np.tanh(values)
        errors: NDArray[np.float32] = np.abs(standard - values)
        return errors


def fit_autoencoder(features: NDArray[np.float32], *, seed: int) -> Autoencoder:
    """An autoencoder of these rows, shape (n, n_features)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.maximum(features.std(axis=0, dtype=np.float64), MIN_SCALE).astype(np.float32)
    standard = _standardised(features, mean, scale)
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        activation="tanh",
        max_iter=EPOCHS,
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


def _standardised(
    features: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    standard: NDArray[np.float32] = np.clip((features - mean) / scale, -FARTHEST, FARTHEST)
    return standard


def _unusable(name: str) -> BadArtifact:
    return BadArtifact(
        f"The stored autoencoder's {name!r} cannot be used. Roll back to another version, or train again."
    )
