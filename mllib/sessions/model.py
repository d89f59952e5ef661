"""One score per session: how its counts of templates, and their order, deviate from those of ordinary sessions.

For every template the model knows how often an ordinary session has it (the median of ``log(1 + count)``) and how much
sessions vary around that. A session's deviation in a template is the square of its distance from the median divided by
that variance: for a template that the share p of the sessions has and the others do not, it is about ``1 / p``; for
one whose count varies freely it stays small. So "above ``1 / p``" reads "as unusual as what only the share p of
sessions do", and that is how the threshold is stated. The largest deviation is the score; the least expected
transition between two templates is one more deviation, weighed so low that it ranks and explains more than it decides.

What has not been seen to the end is not missing: a template that ordinary sessions have, but that comes late (its lag,
99 % quantile), does not count as missing in a session that was observed for a shorter time. Where its absence would
make an anomaly, such a session is **open**. An open session is an anomaly only by what it lacks and should have by
now: what it has too many of may belong to a process that later lines complete. It keeps a score just below the
threshold, and at the end of the lag it is judged like any other.

Scores lie between 0 and 1, **higher is more anomalous**, and from 0.6 on a session is an anomaly. It works where
sessions of a kind repeat: a protocol, a job, a request. It fails where ordinary sessions all differ, and where
anomalies have the counts and the order of ordinary ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._calibration import ANOMALY
from mllib.detectors._class_trees import ClassTrees
from mllib.detectors.base import FORMAT, ModelState
from mllib.errors import BadArtifact
from mllib.features.encoders import category_codes
from mllib.sessions.gathering import Bools, Floats, Ints, Sessions
from mllib.sessions.order import Order

NAME: Final = "sessions"
Mode = Literal["unlabelled", "normal", "labelled"]

ORDER_PRICE: Final = 4.0
"""Lines of one moment come in any order: an order must be so much rarer than a count to matter."""

_BLOCK = 4096  # sessions scored at a time, which bounds the memory
_KNOWN = 0.5  # of the score of a session that a known normal one equals
_TREES = "tree_"


@dataclass(frozen=True, kw_only=True, eq=False)
class Deviations:
    """How some sessions deviate. All at least 0."""

    counts: Floats
    """Shape (sessions, templates + 1): what the model's columns count."""
    of_counts: Floats
    """The same shape; 0 where an absence says nothing yet."""
    of_order: Floats
    """Shape (sessions,)."""
    missing: Bools
    """Shape of ``counts``: below the median."""
    open: Bools
    """Shape (sessions,): a template without which a session is an anomaly is still to come."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionModel:
    """A fitted model. ``width`` is the number of templates and one, for any other template."""

    templates: tuple[str, ...]
    mode: Mode
    share: float
    """What fewer sessions than this share do is an anomaly."""
    sessions: int
    """How many it was fitted on."""
    center: Floats
    """Shape (width,): median of log(1 + count)."""
    variance: Floats
    """Shape (width,): around the median."""
    lag: Floats
    """Shape (width,): seconds by which 99 % of the sessions that have the template had it last."""
    low: Floats
    """Shape (width,): 5 % quantile of the counts, the lower end of the normal range in explanations."""
    high: Floats
    """Shape (width,): 95 % quantile."""
    ordinary_surprise: Floats
    """Median and variance of a session's largest surprise."""
    known: NDArray[np.uint16]
    """Shape (n, width): distinct counts of normal sessions; n is 0 unless the mode is "normal"."""
    excused: Ints
    """Shape (width,): how many labelled normal sessions deviate beyond the threshold."""
    order: Order
    trees: ClassTrees | None

    def scores(self, sessions: Sessions) -> Floats:
        """Shape (sessions,): from 0 to 1, an anomaly from 0.6 on. A score does not depend on the sessions around."""
        parts = [self._scores(part) for part in self._blocks(sessions)]
        return np.concatenate([np.empty(0), *parts])

    def is_open(self, sessions: Sessions) -> Bools:
        """Shape (sessions,): whether a template without which a session is an anomaly is still to come."""
        parts = [self.deviations(part).open for part in self._blocks(sessions)]
        return np.concatenate([np.empty(0, dtype=bool), *parts])

    def deviations(self, sessions: Sessions) -> Deviations:
        counts = self.counts(sessions)
        apart = np.log1p(counts) - self.center
        missing = apart < 0
        to_come = missing & (sessions.observed[:, None] < self.lag)
        of_counts = np.where(to_come, 0.0, apart**2 / self.variance)
        # Most sessions may have a template, and many not: one that waits for it is like any other.
        needed: Bools = self.center**2 / self.variance >= 1.0 / self.share
        bits = self.order.surprise(self.codes(sessions), sessions.of)
        worst = np.zeros(len(sessions))
        np.maximum.at(worst, sessions.of, bits)
        middle, spread = self.ordinary_surprise
        return Deviations(
            counts=counts,
            of_counts=of_counts,
            of_order=np.maximum(worst - middle, 0.0) ** 2 / spread / ORDER_PRICE,
            missing=missing,
            open=np.asarray((to_come & needed).any(axis=1)),
        )

    def counts(self, sessions: Sessions) -> Floats:
        """Shape (sessions, width)."""
        return count(sessions, self.codes(sessions), len(self.center))

    def codes(self, sessions: Sessions) -> Ints:
        """Shape (lines,): the column of each line."""
        code_of = category_codes(sessions.templates, self.templates)
        return np.where(code_of < 0, len(self.templates), code_of)[sessions.template]

    def _blocks(self, sessions: Sessions) -> list[Sessions]:
        return [sessions.part(begin, begin + _BLOCK) for begin in range(0, len(sessions), _BLOCK)]

    def _scores(self, sessions: Sessions) -> Floats:
        return self.judged(self.deviations(sessions))

    def judged(self, found: Deviations) -> Floats:
        """The scores that go with deviations. Shape (sessions,)."""
        score = self._scaled(np.maximum(found.of_counts.max(axis=1, initial=0.0), found.of_order))
        if self.mode == "normal":
            score[[row.tobytes() in self._known_rows for row in as_known(found.counts)]] *= _KNOWN
        if self.trees is not None:
            score = np.maximum(self.learnt(found.counts), self.unexcused(found))
        lacking = np.where(found.missing, found.of_counts, 0.0).max(axis=1, initial=0.0)
        waiting = found.open & (self._scaled(lacking) < ANOMALY) & (score >= ANOMALY)
        # Below the threshold, above the ordinary, and still in their order.
        return np.where(waiting, ANOMALY - 0.1 + 0.09 * score, score)

    @cached_property
    def _known_rows(self) -> frozenset[bytes]:
        return frozenset(row.tobytes() for row in self.known)

    def learnt(self, counts: Floats) -> Floats:
        """What the trees say. Shape (sessions,); 0 without trees."""
        if self.trees is None:
            return np.zeros(len(counts))
        return _rescaled(self.trees.scores(tree_rows(counts))[:, 0])

    def unexcused(self, found: Deviations) -> Floats:
        """What deviations are worth in which no labelled normal session shares: nothing speaks against them.

        Shape (sessions,); 0 below the threshold.
        """
        alone = self._scaled(found.of_counts[:, self.excused == 0].max(axis=1, initial=0.0))
        return np.where(alone >= ANOMALY, alone, 0.0)

    def _scaled(self, deviation: Floats) -> Floats:
        """0.6 at a deviation of ``1 / share``."""
        scaled: Floats = deviation / (deviation + (1.0 / ANOMALY - 1.0) / self.share)
        return scaled

    def state(self) -> ModelState:
        """The whole of it, as a header and plain numeric arrays."""
        header = {
            "detector": NAME,
            "format": FORMAT,
            "templates": list(self.templates),
            "mode": self.mode,
            "share": self.share,
            "sessions": self.sessions,
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {name: getattr(self.order, name) for name in _ORDER}
        if self.trees is not None:
            arrays |= {_TREES + name: values for name, values in self.trees.arrays.items()}
        return ModelState(header=header, arrays=arrays)

    @classmethod
    def load(cls, state: ModelState) -> SessionModel:
        """The model that gave this state. Raises BadArtifact when it is none of ours."""
        header, arrays = state.header, state.arrays
        templates, mode, share = header.get("templates"), header.get("mode"), header.get("share")
        sessions = header.get("sessions")
        if not (
            header.get("detector") == NAME
            and isinstance(templates, list)
            and all(isinstance(template, str) for template in templates)
            and (mode == "unlabelled" or mode == "normal" or mode == "labelled")
            and isinstance(share, float)
            and 0 < share < 1
            and isinstance(sessions, int)
        ):
            raise _refuse("its header is not that of a session model")
        width = len(templates) + 1
        _check(arrays, width)
        trees = {name.removeprefix(_TREES): values for name, values in arrays.items() if name.startswith(_TREES)}
        if (mode == "labelled") != bool(trees):
            raise _refuse("it has trees exactly when it has learnt from labels, or should have")
        return cls(
            templates=tuple(templates),
            mode=mode,
            share=share,
            sessions=sessions,
            order=Order(**{name: arrays[name] for name in _ORDER}),
            trees=ClassTrees(trees, n_features=width) if trees else None,
            **{name: arrays[name] for name in _ARRAYS},
        )


_ORDER = tuple(field.name for field in fields(Order))
_ARRAYS = tuple(
    field.name
    for field in fields(SessionModel)
    if field.name not in ("templates", "mode", "share", "sessions", "order", "trees")
)


def count(sessions: Sessions, codes: Ints, width: int) -> Floats:
    """Shape (sessions, width): how many lines of each code each session has."""
    cells = np.bincount(sessions.of * width + codes, minlength=len(sessions) * width)
    return cells.reshape(-1, width).astype(np.float64)


def as_known(counts: Floats) -> NDArray[np.uint16]:
    """Counts as ``SessionModel.known`` keeps them."""
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def tree_rows(counts: Floats) -> NDArray[np.float32]:
    """Counts as the trees see them."""
    return np.log1p(counts).astype(np.float32)


def _rescaled(probability: Floats) -> Floats:
    """Half becomes 0.6; 0 and 1 stay."""
    return np.interp(probability, [0.0, 0.5, 1.0], [0.0, ANOMALY, 1.0])


def _check(arrays: Mapping[str, NDArray[Any]], width: int) -> None:
    kinds: dict[str, Any] = {"excused": np.int64, "pairs": np.int64, "known": np.uint16}
    shapes: dict[str, tuple[int, ...]] = {"ordinary_surprise": (2,), "backoff": (width + 1,), "unigram": (width + 1,)}
    for name in (*_ARRAYS, *_ORDER):
        values = arrays.get(name)
        if values is None or values.dtype != kinds.get(name, np.float64) or not np.isfinite(values).all():
            raise _refuse(f"its array {name!r} is missing or not of plain finite numbers")
        if name in ("pairs", "bits"):
            fits = values.ndim == 1 and len(values) == len(arrays["pairs"]) > 0
        elif name == "known":
            fits = values.ndim == 2 and values.shape[1] == width
        else:
            fits = values.shape == shapes.get(name, (width,))
        if not fits:
            raise _refuse(f"its array {name!r} does not have the shape of its templates")
    if (np.diff(arrays["pairs"]) <= 0).any() or (arrays["variance"] <= 0).any() or arrays["ordinary_surprise"][1] <= 0:
        raise _refuse("its transitions are out of order, or a variance is not positive")


def _refuse(what: str) -> BadArtifact:
    return BadArtifact(f"The stored session model cannot be used: {what}. Train it again.")
