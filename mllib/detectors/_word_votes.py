"""Linear models over the wording of messages: what each of their terms says for a class, and how rare it is.

Each is plain arrays; a term is known by its digest. What a text gets depends on the text and the model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._wording import PATTERNS, Wording, pattern_texts, patterns
from mllib.errors import BadArtifact

MAX_TERMS = 10_000
"""Terms of a model, those of most texts first: with 36 bytes a term an artifact stays below 1 MB."""

WORDS_C, KINDS_C = 10.0, 1.0
"""Inverse strength of the penalty on the weights of words, and on those of kinds of words."""

_NEVER = -30.0  # the bias of a class that training has no row of


@dataclass(frozen=True, eq=False)
class Terms:
    """The known terms: their digests, ascending."""

    digests: NDArray[np.uint64]

    def places(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each digest; -1 where it is not known."""
        if not len(self.digests):
            return np.full(len(digests), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        return np.where(self.digests[at] == digests, at, -1)

    @classmethod
    def of(cls, wording: Wording) -> tuple[Self, NDArray[np.int64]]:
        """The MAX_TERMS terms that are in most texts, and in how many each is."""
        digests = np.unique(_pairs(wording.rows, wording.digests), axis=0)[:, 1]
        found, texts = np.unique(digests, return_counts=True)
        kept = np.sort(np.lexsort((found, -texts))[:MAX_TERMS])
        return cls(found[kept]), texts[kept]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Known terms in texts, one after the other: text, place among the terms, TF-IDF (rows of length 1)."""

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class WordVotes:
    """Two votes on a text: of its words, and of the kinds of words it has for wording that is not known.

    The words vote by multinomial logistic regression over TF-IDF of words and pairs of words, ``(1 + ln count) * idf``.
    The vote of the words counts as the root of the share of the text's terms that are known, the other one the rest.
    """

    terms: Terms
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    """Shape (terms, classes)."""
    bias: NDArray[np.float32]
    table: NDArray[np.float64]
    """Shape (PATTERNS, classes): the probabilities by kinds of words."""

    def weighted(self, wording: Wording) -> Weighted:
        """The known terms of each text."""
        places = self.terms.places(wording.digests)
        known = places >= 0
        size = max(len(self.idf), 1)
        cells, counts = np.unique(wording.rows[known] * size + places[known], return_counts=True)
        rows, at = cells // size, cells % size
        values = (1.0 + np.log(counts)) * self.idf[at]
        squares = np.bincount(rows, values * values, minlength=len(wording.texts))
        return Weighted(rows=rows, places=at, values=values / np.sqrt(squares[rows]))

    def measure(self, wording: Wording) -> NDArray[np.float64]:
        """Shape (texts, classes + 1): what the words add up to for each class, and the share of terms known."""
        n, found = len(wording.texts), self.weighted(wording)
        columns = [
            np.bincount(found.rows, found.values * self.weights[found.places, column], minlength=n) + self.bias[column]
            for column in range(len(self.bias))
        ]
        known = np.bincount(wording.rows, self.terms.places(wording.digests) >= 0, minlength=n)
        return np.stack([*columns, known / np.maximum(np.bincount(wording.rows, minlength=n), 1)], axis=1)

    def votes(
        self, measured: NDArray[np.float32], kinds: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The two votes, whose sum is the probability of each class, both of shape (n, classes)."""
        share = np.sqrt(measured[:, -1:].astype(np.float64))
        return share * softmax(measured[:, :-1].astype(np.float64)), (1.0 - share) * self.table[patterns(kinds)]

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        parts: dict[str, NDArray[Any]] = {
            "terms": self.terms.digests,
            "idf": self.idf,
            "weights": self.weights,
            "bias": self.bias,
            "table": self.table,
        }
        return {f"{prefix}_{name}": values for name, values in parts.items()}

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], prefix: str, classes: int) -> Self:
        """Raises BadArtifact unless the arrays are those that ``arrays`` gives."""
        terms = load_terms(arrays, f"{prefix}_terms")
        n = len(terms.digests)
        return cls(
            terms=terms,
            idf=_finite(arrays, f"{prefix}_idf", (n,), np.float32),
            weights=_finite(arrays, f"{prefix}_weights", (n, classes), np.float32),
            bias=_finite(arrays, f"{prefix}_bias", (classes,), np.float32),
            table=_finite(arrays, f"{prefix}_table", (PATTERNS, classes), np.float64),
        )

    @classmethod
    def fit(
        cls,
        texts: pl.Series,
        places: NDArray[np.int64],
        y: NDArray[np.int64],
        weight: NDArray[np.float64],
        classes: int,
    ) -> Self:
        """Fits on examples: the text at a place among ``texts`` (distinct) is of class y, and counts so much."""
        wording = Wording(texts)
        words = _fit_words(wording, places, y, weight, classes, WORDS_C)
        found = patterns(wording.kinds)
        seen, of_text = np.unique(found, return_inverse=True)
        examples, of_example = np.unique(_pairs(of_text[places], y), axis=0, return_inverse=True)
        kinds = _fit_words(
            Wording(pattern_texts()[seen.tolist()]),
            examples[:, 0],
            examples[:, 1],
            np.bincount(of_example.ravel(), weight).astype(np.float64),
            classes,
            KINDS_C,
        )
        table = softmax(kinds.measure(Wording(pattern_texts()))[:, :-1])
        return cls(terms=words.terms, idf=words.idf, weights=words.weights, bias=words.bias, table=table)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rarity:
    """In how many of the rows trained on each term is."""

    terms: Terms
    rows_with: NDArray[np.int64]
    rows: int

    def rarities(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each place among the terms, from 0 for a term in all rows to 1 for one that is not known."""
        seen = np.where(places >= 0, self.rows_with[places] if len(self.rows_with) else 0, 0)
        rarities: NDArray[np.float64] = np.log((1 + self.rows) / (1 + seen)) / np.log(1 + self.rows)
        return rarities

    def measure(self, wording: Wording) -> NDArray[np.float64]:
        """Shape (texts, 1): the mean over a text's terms; 0 for a text without any."""
        n = len(wording.texts)
        total = np.bincount(wording.rows, self.rarities(self.terms.places(wording.digests)), minlength=n)
        return (total / np.maximum(np.bincount(wording.rows, minlength=n), 1)).reshape(-1, 1)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        return {
            f"{prefix}_terms": self.terms.digests,
            f"{prefix}_rows_with": self.rows_with,
            f"{prefix}_rows": np.array([self.rows], dtype=np.int64),
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> Self:
        """Raises BadArtifact unless the arrays are those that ``arrays`` gives."""
        terms = load_terms(arrays, f"{prefix}_terms")
        rows_with = _finite(arrays, f"{prefix}_rows_with", terms.digests.shape, np.int64)
        (rows,) = _finite(arrays, f"{prefix}_rows", (1,), np.int64).tolist()
        if rows < 1 or (rows_with < 0).any() or (rows_with > rows).any():
            raise _unusable(f"{prefix}_rows")
        return cls(terms=terms, rows_with=rows_with, rows=rows)

    @classmethod
    def fit(cls, texts: pl.Series, counts: NDArray[np.int64]) -> Self:
        """From distinct texts and how many rows have each."""
        wording = Wording(texts)
        terms, _ = Terms.of(wording)
        places = terms.places(wording.digests)
        once = np.unique(_pairs(wording.rows, places)[places >= 0], axis=0)
        rows_with = np.zeros(len(terms.digests), dtype=np.int64)
        np.add.at(rows_with, once[:, 1], counts[once[:, 0]])
        return cls(terms=terms, rows_with=rows_with, rows=int(counts.sum()))


def softmax(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row. Column by column: the order of a sum along rows could depend on how many rows there are."""
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    total = np.zeros(len(sums))
    for column in range(sums.shape[1]):
        total += powers[:, column]
    shares: NDArray[np.float64] = powers / total[:, None]
    return shares


def load_terms(arrays: Mapping[str, NDArray[Any]], name: str) -> Terms:
    digests = arrays.get(name)
    if digests is None or digests.ndim != 1 or digests.dtype != np.uint64 or len(digests) > MAX_TERMS:
        raise _unusable(name)
    if (digests[1:] <= digests[:-1]).any():
        raise _unusable(name)
    return Terms(digests)


def _fit_words(
    wording: Wording,
    places: NDArray[np.int64],
    y: NDArray[np.int64],
    weight: NDArray[np.float64],
    classes: int,
    c: float,
) -> WordVotes:
    """The vote of the words alone. The optimum is unique: nothing is drawn."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    terms, texts = Terms.of(wording)
    idf = (np.log((1 + len(wording.texts)) / (1 + texts)) + 1.0).astype(np.float32)
    weights, bias = np.zeros((len(idf), classes)), np.full(classes, _NEVER)
    model = WordVotes(
        terms=terms,
        idf=idf,
        weights=weights.astype(np.float32),
        bias=bias.astype(np.float32),
        table=np.full((PATTERNS, classes), 1.0 / classes),
    )
    present = np.unique(y)
    if len(present) == 1 or not len(idf):
        bias[present] = np.log(np.bincount(y, weight, minlength=classes)[present])
    else:
        found = model.weighted(wording)
        x = sparse.csr_matrix((found.values, (found.rows, found.places)), shape=(len(wording.texts), len(idf)))
        fitted = LogisticRegression(C=c, max_iter=1_000).fit(x[places], y, sample_weight=weight)
        coefficients, intercept = fitted.coef_, fitted.intercept_
        if len(present) == 2:  # one row, for the second class: the first one gets what makes both sum to nothing
            coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.append(-intercept, intercept) / 2
        weights[:, present], bias[present] = coefficients.T, intercept
    return WordVotes(
        terms=terms, idf=idf, weights=weights.astype(np.float32), bias=bias.astype(np.float32), table=model.table
    )


def _pairs(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    return np.stack([left.astype(right.dtype), right], axis=1)


def _finite(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    values = arrays.get(name)
    if values is None or values.shape != shape or values.dtype != kind or not np.isfinite(values).all():
        raise _unusable(name)
    return values


def _unusable(name: str) -> BadArtifact:
    return BadArtifact(
        f"The stored {name.replace('_', ' ')} are not those of a model over the wording of messages. "
        "Roll back to another version, or train again."
    )
