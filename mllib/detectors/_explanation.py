"""Why a row is an anomaly, in the reader's terms: which features, how unusual each is, and what to look at.

An isolation forest calls a row anomalous because its paths are short. The **excess** of a row is the number of splits
by which its paths are shorter than those of an average row, and every split on the way is credited to the feature that
was asked, so that the parts of all features add up to the excess (``IsolationTrees.attributions``). Features that are
one thing to a reader, such as the sine and cosine of an hour, are added up to groups.

An explanation is JSON, well below 1 kB, and a function of the row, its features and the model alone. Text out of a
log stands in it as a value of at most 40 characters and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._texts import json_number, json_numbers, json_text, json_texts
from mllib.errors import BadArtifact

AT_MOST = 5
"""Features that an explanation names; those after the third only if they have at least MIN_SHARE of the excess."""

MIN_SHARE = 0.05
NORMAL = (0.05, 0.95)
"""The quantiles of the training sample between which a number is normal."""

_ENTRY = '%s%s,"share":%.4f}'
_CHANGES = 3  # so many of a row's leading features are tried, one by one, for a value that would make it normal

F = TypeVar("F", np.float32, np.float64)


class Judge(Protocol):
    """What calls rows anomalous: a forest, or an ensemble. ``features`` always have shape (n, n_features)."""

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """All that it is made of, as an artifact holds it."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n,): the raw scores, 0 to 1."""

    def reasons(self, features: NDArray[np.float32]) -> Reasons:
        """Of each row its excess, and what it is made of."""


class Reasons(NamedTuple):
    """Of some rows why they score as they do."""

    excess: NDArray[np.float64]  # (n,)
    form: str  # the members of a JSON object that say so, to be filled in by the % operator
    told: Sequence[NDArray[np.float64]]  # with these, (n,) each
    parts: NDArray[np.float64]  # (n, n_features): what each feature adds to the excess


Texts = NDArray[np.object_]
Codes = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A feature that is a number to the reader too."""

    name: str
    column: int
    unit: str | None = None
    advice: str
    changeable: bool = True  # whether it says something to a reader that the line would be normal with another value

    @property
    def columns(self) -> range:
        return range(self.column, self.column + 1)


@dataclass(frozen=True, kw_only=True)
class Category:
    """Columns that stand for one of several values: an hour, a level, a service."""

    name: str
    columns: range
    codes: Codes  # from these columns, shape (n, len(columns)), to a number below ``size``
    size: int
    labels: tuple[str, ...] | None = None  # what the codes are called; None: the text in column ``name`` of the log
    advice: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """Columns that weigh the words of a message."""

    name: str
    columns: range
    terms: tuple[str, ...]
    advice: str


Group = Figure | Category | Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Usual:
    """What the training sample looked like: the normal range of each figure, how often each category was seen."""

    ranges: NDArray[np.float64]  # (figures, 2), the quantiles NORMAL
    shares: NDArray[np.float64]  # of all categories' codes, one category after the other

    @classmethod
    def of(cls, groups: Sequence[Group], features: NDArray[np.float32]) -> Usual:
        figures = [group.column for group in groups if isinstance(group, Figure)]
        shares = [
            np.bincount(group.codes(_part(features, group)), minlength=group.size) / len(features)
            for group in groups
            if isinstance(group, Category)
        ]
        ranges = np.quantile(features[:, figures].astype(np.float64), NORMAL, axis=0).T
        return cls(ranges=np.ascontiguousarray(ranges), shares=np.concatenate([*shares, np.empty(0)]))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], groups: Sequence[Group]) -> Usual:
        """Raises BadArtifact unless the arrays are those that ``arrays`` gives for these groups."""
        figures = sum(isinstance(group, Figure) for group in groups)
        codes = sum(group.size for group in groups if isinstance(group, Category))
        found = []
        for name, shape in (("normal_ranges", (figures, 2)), ("shares_seen", (codes,))):
            values = arrays.get(name, None if 0 not in shape else np.empty(shape))
            if values is None or values.shape != shape or values.dtype != np.float64 or not np.isfinite(values).all():
                raise BadArtifact(
                    f"The stored {name.replace('_', ' ')} are not those of the model's features. "
                    "Roll back to another version, or train again."
                )
            found.append(values)
        return cls(ranges=found[0], shares=found[1])

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        arrays = {"normal_ranges": self.ranges, "shares_seen": self.shares}
        return {name: values for name, values in arrays.items() if values.size}


class Explainer:
    """Explains rows that a judge calls anomalous. ``groups`` cover all of its features, in order."""

    def __init__(self, groups: Sequence[Group], judge: Judge, usual: Usual) -> None:
        self._groups = groups
        self._judge = judge
        self._advice = np.array([json.dumps(group.advice) for group in groups], dtype=object)
        ranges, shares = iter(usual.ranges.tolist()), iter(usual.shares.tolist())
        self._limits = np.array(
            [[0.0, -np.inf, np.inf]] * len(groups)
        )  # column, normal range; no limits but of figures
        self._changed: list[str] = []  # how the entry of each group begins, up to the value that would be normal
        heads = []  # and up to its value
        self._seen: dict[int, list[str]] = {}
        for place, group in enumerate(groups):
            head = f'{{"name":{json_text(group.name)}'
            if isinstance(group, Figure) and group.unit is not None:
                head += f',"unit":{json_text(group.unit)}'
            self._changed.append(f'{head},"value":')
            if isinstance(group, Figure):
                low, high = (float(json_number(end)) for end in next(ranges))  # what is said is what is tried
                if group.changeable:
                    self._limits[place] = group.column, low, high
                head += f',"normal":[{json_number(low)},{json_number(high)}]'
            elif isinstance(group, Category):
                self._seen[place] = [json_number(next(shares)) for _ in range(group.size)]
            heads.append(f'{head},"words":' if isinstance(group, Words) else f'{head},"value":')
        self._heads = np.array(heads, dtype=object)

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32], threshold: float) -> list[str]:
        """The explanation of each of ``lines``, whose features are ``features``; JSON texts in the same order."""
        if not len(features):
            return []
        excess, form, told, parts = self._judge.reasons(features)
        grouped = np.empty((len(parts), len(self._groups)))
        for place, group in enumerate(self._groups):
            grouped[:, place] = _sums(_part(parts, group))
        leading = np.argsort(-grouped, axis=1, kind="stable")[:, :AT_MOST]
        amounts = grouped[np.arange(len(parts))[:, None], leading]
        # No excess is possible only where somebody put the threshold below the score of an average row.
        whole = np.where(excess > 0, excess, np.inf)
        shares = amounts / whole[:, None]
        large = (shares > 0) & ((shares >= MIN_SHARE) | (np.arange(leading.shape[1]) < 3))
        named = np.logical_and.accumulate(large, axis=1)
        other = np.subtract.reduce(np.column_stack([excess, amounts * named]), axis=1)  # in the order of the columns
        heads, values = self._heads[leading], self._values(lines, features, parts, leading, named)
        last = (
            np.array([round(share, 4) + 0.0 for share in (other / whole).tolist()]),
            self._advice[leading[:, 0]],
            self._changes(features, leading, threshold),
        )
        # Rows that name as many groups have one form, which is sooner filled in than put together row by row.
        count = np.where(excess > 0, named.sum(axis=1), -1)
        texts = np.empty(len(features), dtype=object)
        for groups in set(count.tolist()):
            if groups < 0:
                columns: list[NDArray[Any]] = [*told]
                rest = '"note":"it is no more unusual than others: the threshold is very low"'
            else:
                entries = [(heads[:, rank], values[:, rank], shares[:, rank]) for rank in range(groups)]
                columns = [*told, *chain.from_iterable(entries), *last]
                rest = f'"features":[{",".join([_ENTRY] * groups)}],"other":%s,"look_at":%s%s'
            rows = np.flatnonzero(count == groups)
            filled = f"{{{form},{rest}}}"
            texts[rows] = [filled % row for row in zip(*(column[rows].tolist() for column in columns), strict=True)]
        return texts.tolist()

    def _changes(self, features: NDArray[np.float32], leading: NDArray[np.int64], threshold: float) -> Texts:
        """For rows that one figure out of its normal range makes anomalous: the nearest normal value, as JSON member.

        Each is tried before it is said: the row is scored with that feature changed, and the others as they are.
        """
        found = np.full(len(features), "", dtype=object)
        still = np.ones(len(features), dtype=bool)
        for rank in range(min(_CHANGES, leading.shape[1])):
            column, low, high = self._limits[leading[:, rank]].T
            column = column.astype(np.intp)
            value = features[np.arange(len(features)), column]
            rows = np.flatnonzero(((value < low) | (value > high)) & still)
            if not len(rows):
                continue
            nearest = np.clip(value, low, high)[rows]
            changed = features[rows]
            changed[np.arange(len(rows)), column[rows]] = nearest
            works = self._judge.scores(changed) < threshold
            still[rows[works]] = False
            for row, normal in zip(rows[works].tolist(), nearest[works].tolist(), strict=True):
                found[row] = f',"normal_with":{self._changed[leading[row, rank]]}{json_number(normal)}}}'
        return found

    def _values(
        self,
        lines: pl.DataFrame,
        features: NDArray[np.float32],
        parts: NDArray[np.float64],
        leading: NDArray[np.int64],
        named: NDArray[np.bool_],
    ) -> Texts:
        """The shape of ``leading``: what those groups are in each row, as JSON, where they are ``named``."""
        values = np.full(leading.size, "", dtype=object)
        at = np.flatnonzero(named)
        group_of = leading.ravel()[at]
        at = at[np.argsort(group_of, kind="stable")]
        begin = 0
        for place, count in enumerate(np.bincount(group_of).tolist()):
            if count:
                chosen = at[begin : begin + count]
                rows = chosen // leading.shape[1]
                values[chosen] = self._values_of(place, lines, features[rows], parts, rows)
                begin += count
        return values.reshape(leading.shape)

    def _values_of(
        self,
        place: int,
        lines: pl.DataFrame,
        features: NDArray[np.float32],
        parts: NDArray[np.float64],
        rows: NDArray[np.intp],
    ) -> list[str]:
        """What a group is in each of ``rows`` of the lines and parts, as JSON. ``features`` are those of the rows."""
        group = self._groups[place]
        if isinstance(group, Figure):
            return json_numbers(features[:, group.column])
        if isinstance(group, Category):
            codes = group.codes(_part(features, group)).tolist()
            names = lines[group.name].to_list() if group.labels is None else group.labels
            named = json_texts([names[at] for at in (rows.tolist() if group.labels is None else codes)])
            seen = self._seen[place]
            return [f'{text},"seen":{seen[code]}' for text, code in zip(named, codes, strict=True)]
        weights = np.where(_part(features, group) > 0, _part(parts, group)[rows], 0.0)[:, : len(group.terms)]
        best = np.argsort(-weights, axis=1, kind="stable")[:, :3]
        told = np.take_along_axis(weights, best, axis=1) > 0  # as they descend, the first ones
        terms = json_texts(group.terms)
        return [
            f"[{','.join([terms[term] for term in row[:some]])}]"
            for row, some in zip(best.tolist(), told.sum(axis=1).tolist(), strict=True)
        ]


def _part(columns: NDArray[F], group: Group) -> NDArray[F]:
    return columns[:, group.columns.start : group.columns.stop]


def _sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row; a running sum, for the order of a plain one along rows could depend on how many rows there are."""
    return np.cumsum(columns, axis=1)[:, -1] if columns.shape[1] > 1 else columns[:, 0]


def one_hot_codes(columns: NDArray[np.float32]) -> NDArray[np.int64]:
    """The column that is 1, counted from 1; 0 where none is. Of as many values as there are columns, and one."""
    codes: NDArray[np.int64] = np.where(columns.any(axis=1), columns.argmax(axis=1) + 1, 0)
    return codes
