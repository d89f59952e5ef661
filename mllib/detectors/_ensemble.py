"""Four members that judge a log line, on one scale, weighted: forest, autoencoder, rarity and sequence.

Each member has an **excess**: by how much a line is more unusual than an ordinary one of the training sample.

- forest: questions that an isolation forest needs less, over the first columns of the features;
- autoencoder: error in reproducing the same columns, in standard deviations, all columns together;
- rarity: bits of surprise at the template, at the template in its service, and at its words;
- sequence: bits of surprise at the template after the one before it in its service.

The common scale is that of the training sample: a member's excess is divided by the distance between its median and
its 99.9 % quantile there. That keeps order and distances, and has no end: of two lines that are both unlike anything
in the training, the odder one scores higher. The excess of the ensemble is the weighted sum; it is also a sum over the
features, so that an explanation divides it without a rest.

Forest and autoencoder tell ordinary lines apart by what does not matter, which would drown what the counts say. So
they may be heard **beyond** the ordinary only: what counts is by how much they pass their 99 % quantile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._autoencoder import Autoencoder, fit_autoencoder
from mllib.detectors._explanation import Reasons
from mllib.detectors._isolation import IsolationTrees, fit_trees
from mllib.detectors._surprise import SURPRISES
from mllib.errors import BadArtifact

MEMBERS = ("forest", "autoencoder", "rarity", "sequence")
_ORDER = SURPRISES.index("template_order_surprise")
_RARITY = [place for place in range(len(SURPRISES)) if place != _ORDER]
_NORMAL, _FAR = 0.5, 0.999  # the quantiles whose distance is the unit of the common scale
_ORDINARY = 0.99
_OF_FEATURES = ("forest", "autoencoder")  # the members that may be heard beyond the ordinary only

LEAST_UNIT = 1.0
"""A unit is at least one question, standard deviation or bit: a member that says nearly the same of all lines of the
training must not decide alone."""

AUTOENCODER_ROWS = 10_000
AUTOENCODER_EPOCHS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each member counts for; they add up to 1. One with weight 0 is not asked."""

    beyond: bool
    """Whether forest and autoencoder are heard beyond the ordinary only."""

    forest: float
    autoencoder: float
    rarity: float
    sequence: float

    @cached_property
    def values(self) -> tuple[float, ...]:
        """In the order of MEMBERS."""
        return tuple(getattr(self, name) for name in MEMBERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The fitted members over ``width`` features and the surprises after them. A `Judge`, see `_explanation`."""

    trees: IsolationTrees
    coder: Autoencoder
    usual_errors: Floats  # (width,) of the autoencoder, on average over the training sample
    usual_bits: Floats  # (4,) of SURPRISES, the medians over the training sample
    units: Floats  # (4,) of MEMBERS
    ordinary: Floats  # (4,) of MEMBERS: an excess that 99 % of the training sample do not reach, at least 0
    weights: Weights

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): above 0 and below 1, 0.5 for an average line; higher is more anomalous."""
        return squashed(self.excess(features))

    def excess(self, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): the weighted sum of the members' excesses."""
        return _total(self.members(features), len(features))

    def members(self, features: NDArray[np.float32]) -> dict[str, Floats]:
        """What each member that has a weight adds to the excess."""
        return {
            name: self._heard(place, self.member(name, features))
            for place, name in enumerate(MEMBERS)
            if self.weights.values[place]
        }

    def member(self, name: str, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): the excess of one member, in questions, standard deviations or bits."""
        width = len(self.usual_errors)
        if name == "forest":
            return self.trees.usual_path - self.trees.paths(features)  # no tree asks for the columns after its own
        if name == "autoencoder":
            # Exact in 64 bits, see there: the order of the sum does not matter.
            return self.coder.total_errors(features) - self._usual_error
        columns = _RARITY if name == "rarity" else [_ORDER]
        total = np.zeros(len(features))
        for column in columns:
            total += features[:, width + column] - self.usual_bits[column]
        return total

    def reasons(self, features: NDArray[np.float32]) -> Reasons:
        """Of each row its excess, and what it is made of."""
        return told(*self.taken_apart(features))

    def taken_apart(self, features: NDArray[np.float32]) -> tuple[dict[str, Floats], Floats]:
        """``members``, and shape (n, columns of ``features``): what each feature adds to them. A row's add up to it."""
        width = len(self.usual_errors)
        members: dict[str, Floats] = {}
        parts = np.zeros(features.shape)
        for place, name in enumerate(MEMBERS):
            if not self.weights.values[place]:
                continue
            if name == "forest":
                paths, of_member = self.trees.credited(features)
                excess = self.trees.usual_path - paths
            else:
                excess = self.member(name, features)
            members[name] = heard = self._heard(place, excess)
            if name in _OF_FEATURES:
                if name == "autoencoder":
                    of_member = self.coder.errors(features) - self.usual_errors
                # What is heard of a member is divided as its excess is. Where nothing is, there is nothing to divide.
                of_member *= np.divide(heard, excess, out=np.zeros(len(heard)), where=heard != 0)[:, None]
                parts[:, :width] += of_member[:, :width]
            else:
                own = _RARITY if name == "rarity" else [_ORDER]
                columns = [width + column for column in own]
                parts[:, columns] = self._factor(place) * (features[:, columns] - self.usual_bits[own])
        return members, parts

    @cached_property
    def _usual_error(self) -> float:
        return float(self.usual_errors.sum())

    def _factor(self, place: int) -> float:
        return self.weights.values[place] / float(self.units[place])

    def _heard(self, place: int, excess: Floats) -> Floats:
        factor = self._factor(place)
        if self.weights.beyond and MEMBERS[place] in _OF_FEATURES:
            return factor * np.maximum(excess - float(self.ordinary[place]), 0.0)
        return factor * excess

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``load`` needs."""
        return {
            **self.trees.arrays,
            **self.coder.arrays,
            "usual_errors": self.usual_errors,
            "usual_bits": self.usual_bits,
            "units": self.units,
            "ordinary": self.ordinary,
            "weights": np.array(self.weights.values),
            "beyond": np.array([self.weights.beyond], dtype=np.int64),
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], *, width: int) -> Ensemble:
        """What ``arrays`` gave. Raises BadArtifact when they are none of an ensemble over these features."""
        weights = _numbers(arrays, "weights", len(MEMBERS))
        units = _numbers(arrays, "units", len(MEMBERS))
        if (units < LEAST_UNIT).any():
            raise _unusable("units")
        if (weights < 0).any() or not np.isclose(weights.sum(), 1.0):
            raise _unusable("weights")
        ordinary = _numbers(arrays, "ordinary", len(MEMBERS))
        if (ordinary < 0).any():
            raise _unusable("ordinary")
        beyond = arrays.get("beyond", np.empty(0))
        if beyond.shape != (1,) or beyond.dtype != np.int64 or beyond[0] not in (0, 1):
            raise _unusable("beyond")
        return cls(
            trees=IsolationTrees(arrays, n_features=width),
            coder=Autoencoder(arrays, n_features=width),
            usual_errors=_numbers(arrays, "usual_errors", width),
            usual_bits=_numbers(arrays, "usual_bits", len(SURPRISES)),
            units=units,
            ordinary=ordinary,
            weights=Weights(beyond=bool(beyond[0]), **dict(zip(MEMBERS, weights.tolist(), strict=True))),
        )


def fit_ensembles(
    features: NDArray[np.float32], held_out: Floats, weights: Sequence[Weights], *, n_estimators: int, seed: int
) -> list[tuple[Ensemble, Floats]]:
    """One ensemble for each of ``weights``, of the same members, and the excesses of the training sample by it.

    ``features`` has shape (n, width), ``held_out`` shape (n, 4): how surprising each row is to counts without it.
    """
    trees = fit_trees(features, n_estimators=n_estimators, seed=seed)
    rows = np.linspace(0, len(features) - 1, min(len(features), AUTOENCODER_ROWS)).astype(int)
    coder = fit_autoencoder(features[rows], seed=seed, epochs=AUTOENCODER_EPOCHS)
    ensemble = Ensemble(
        trees=trees,
        coder=coder,
        usual_errors=coder.errors(features).mean(axis=0, dtype=np.float64),
        usual_bits=np.median(held_out, axis=0),  # no mean: a stretch of new templates would raise it above most lines
        units=np.ones(len(MEMBERS)),
        ordinary=np.zeros(len(MEMBERS)),
        weights=weights[0],
    )
    judged = np.concatenate([features, held_out.astype(np.float32)], axis=1)
    excesses = [ensemble.member(name, judged) for name in MEMBERS]
    normal, ordinary, far = np.quantile(excesses, [_NORMAL, _ORDINARY, _FAR], axis=1)
    scaled = replace(ensemble, units=np.maximum(far - normal, LEAST_UNIT), ordinary=np.maximum(ordinary, 0.0))
    fitted = []
    for chosen in weights:
        judge = replace(scaled, weights=chosen)
        heard = sum((judge._heard(place, excess) for place, excess in enumerate(excesses)), np.zeros(len(features)))
        fitted.append((judge, heard))
    return fitted


def told(members: Mapping[str, Floats], parts: Floats) -> Reasons:
    """The reasons of rows whose excess is the sum of ``members``, shape (n,) each, in this order, and of ``parts``."""
    excess = _total(members, len(parts))
    form = '"excess":%.3f,"members":{' + ",".join(f'"{name}":%.3f' for name in members) + "}"
    return Reasons(excess, form, (excess, *members.values()), parts)


def squashed(excess: Floats) -> Floats:
    """From any number to between 0 and 1, in the same order, far out as well: 0 becomes 0.5."""
    squashed: Floats = 0.5 + 0.5 * excess / (1.0 + np.abs(excess))
    return squashed


def _total(members: Mapping[str, Floats], rows: int) -> Floats:
    total = np.zeros(rows)
    for of_member in members.values():
        total += of_member
    return total


def _numbers(arrays: Mapping[str, NDArray[Any]], name: str, size: int) -> Floats:
    values = arrays.get(name)
    if values is None or values.shape != (size,) or values.dtype != np.float64 or not np.isfinite(values).all():
        raise _unusable(name)
    return values


def _unusable(name: str) -> BadArtifact:
    return BadArtifact(f"The stored ensemble has no usable {name!r}. Roll back to another version, or train again.")
