"""Fits a session model. What it learns from is told apart by the labels given.

- None: every session counts, and what fewer than 3 % of them do is an anomaly; fewer still, where that would be more
  than a tenth of them.
- Only normal ones: they alone count, and the bar is 1 %; a session whose counts equal those of a known normal one in
  every template is normal.
- Some of both: extra trees on the counts. Sessions without a label take that of the labelled ones with the same
  counts, else the verdict of the unlabelled model, at a tenth of the weight; not if cross-validation over the labelled
  ones says that the trees do clearly better without. Where a session deviates in a template in which no labelled
  normal one does, the larger of both scores counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from mllib.detectors._calibration import ANOMALY
from mllib.detectors._class_trees import MAX_DEPTH, ClassTrees, from_sklearn
from mllib.detectors._explanation import NORMAL
from mllib.errors import NothingToTrainOn
from mllib.sessions.gathering import Bools, Floats, Ints, Sessions
from mllib.sessions.model import Mode, SessionModel, as_known, count, tree_rows
from mllib.sessions.order import Order

UNLABELLED_SHARE: Final = 0.03
"""With no labels: what fewer than this share of the sessions do is an anomaly. Stated beforehand, not fitted."""

MOST_ALARMS: Final = 0.1
"""Where ordinary sessions all differ, much is rare. No more than this share of the training is called an anomaly."""

NORMAL_SHARE: Final = 0.01
"""The same when all training sessions are known to be normal."""

MIN_SESSIONS: Final = 50
MAX_SESSIONS: Final = 50_000
"""Of more, so many are learned from, spread evenly over time; those with a label come first."""

MAX_TEMPLATES: Final = 300
"""The templates that most sessions have. Rarer ones share the last column with those never seen."""

GUESS_WEIGHT: Final = 0.1
TREES: Final = 200
_FOLD_TREES, _FOLDS = 50, 5
_LAG = 0.99
_RIDGE = 1.0  # one made-up session that deviates by one line: keeps the variance of constant counts above 0


def fit(sessions: Sessions, *, labels: Mapping[str, bool] | None = None, seed: int = 42) -> SessionModel:
    """``labels``: of the sessions that are known, by name, whether they are an anomaly; other names do not matter.

    Fewer than MIN_SESSIONS normal ones and no anomaly are as good as no labels: ``mode`` of the model says what it is.
    Raises NothingToTrainOn for fewer than MIN_SESSIONS sessions to learn from.
    """
    given = labels or {}
    truth = np.array([-1 if (known := given.get(name)) is None else int(known) for name in sessions.names], dtype=int)
    if len(sessions) > MAX_SESSIONS:
        places = _sample(truth)
        sessions, truth = sessions.take(places), truth[places]
    everyone = np.ones(len(sessions), dtype=bool)
    normal, anomalies = int((truth == 0).sum()), int((truth == 1).sum())
    if anomalies and normal:
        base = _within_bounds(_fit_counts(sessions, everyone, mode="labelled", share=UNLABELLED_SHARE), sessions)
        beyond = base.deviations(sessions).of_counts[truth == 0] >= 1.0 / base.share
        return replace(base, excused=beyond.sum(axis=0).astype(np.int64), trees=_fit_trees(base, sessions, truth, seed))
    if normal >= MIN_SESSIONS:
        return _fit_counts(sessions, truth == 0, mode="normal", share=NORMAL_SHARE)
    return _within_bounds(_fit_counts(sessions, everyone, mode="unlabelled", share=UNLABELLED_SHARE), sessions)


def _within_bounds(model: SessionModel, sessions: Sessions) -> SessionModel:
    """The model with a share so small that at most MOST_ALARMS of the sessions are anomalies."""
    score = float(np.quantile(model.scores(sessions), 1.0 - MOST_ALARMS))
    if score < ANOMALY:
        return model
    # The share that puts what has this score at the threshold, and a hair more.
    smaller = model.share * (1.0 - score) / score * ANOMALY / (1.0 - ANOMALY)
    return replace(model, share=max(smaller * (1.0 - 1e-6), np.finfo(np.float32).tiny.item()))


def _sample(truth: Ints) -> Ints:
    labelled = _even(np.flatnonzero(truth >= 0), MAX_SESSIONS)
    return np.sort(np.concatenate([labelled, _even(np.flatnonzero(truth < 0), MAX_SESSIONS - len(labelled))]))


def _even(places: Ints, most: int) -> Ints:
    return places if len(places) <= most else places[np.arange(most) * len(places) // max(most, 1)]


def _fit_counts(sessions: Sessions, used: Bools, *, mode: Mode, share: float) -> SessionModel:
    n = int(used.sum())
    if n < MIN_SESSIONS:
        raise NothingToTrainOn(
            f"There are {n} sessions to learn from, and at least {MIN_SESSIONS} are needed: take a longer window, and "
            "see that the lines carry a trace_id."
        )
    kept = _frequent(sessions, used)
    code_of = np.full(len(sessions.templates), len(kept))
    code_of[kept] = np.arange(len(kept))
    codes, width = code_of[sessions.template], len(kept) + 1
    counts = count(sessions, codes, width)
    lag = _lags(sessions, codes, used, width)
    center, variance, low, high = _usual(counts[used], sessions.observed[used], lag)
    order = Order.fit(codes, sessions.of, used, width)
    bits = order.surprise(codes, sessions.of)
    worst = np.zeros(len(sessions))
    np.maximum.at(worst, sessions.of, bits)
    middle = float(np.median(worst[used]))
    spread = (float(((worst[used] - middle) ** 2).sum()) + _RIDGE) / (n + _RIDGE)
    return SessionModel(
        templates=tuple(sessions.templates.gather(kept)),
        mode=mode,
        share=share,
        sessions=n,
        center=center,
        variance=variance,
        lag=lag,
        low=low,
        high=high,
        ordinary_surprise=np.array([middle, spread]),
        known=np.unique(as_known(counts[used]), axis=0)[: None if mode == "normal" else 0],
        excused=np.zeros(width, dtype=np.int64),
        order=order,
        trees=None,
    )


def _frequent(sessions: Sessions, used: Bools) -> Ints:
    """The templates that most sessions have, the most frequent first."""
    mine = used[sessions.of]
    present = np.unique(np.stack([sessions.template[mine], sessions.of[mine]]), axis=1)[0]
    frequency = np.bincount(present, minlength=len(sessions.templates))
    return np.argsort(-frequency, kind="stable")[: min(int((frequency > 0).sum()), MAX_TEMPLATES)]


def _lags(sessions: Sessions, codes: Ints, used: Bools, width: int) -> Floats:
    last = np.full((len(sessions), width), np.nan)
    last[sessions.of, codes] = sessions.since  # ascending within a session: the last one stays
    last = last[used]
    lag = np.zeros(width)
    for column in np.flatnonzero(np.isfinite(last).any(axis=0)).tolist():
        lag[column] = np.nanquantile(last[:, column], _LAG)
    return lag


def _usual(counts: Floats, observed: Floats, lag: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Median and variance of log(1 + count), and the normal range of the counts. What is still to come is left out."""
    logs = np.log1p(counts)
    center = np.median(logs, axis=0)
    told = np.where((logs < center) & (observed[:, None] < lag), np.nan, logs)
    by_one = (np.log1p(np.expm1(center) + 1.0) - center) ** 2
    squares = (told - center) ** 2
    variance = (np.nansum(squares, axis=0) + _RIDGE * by_one) / (np.isfinite(told).sum(axis=0) + _RIDGE)
    low, high = np.nanquantile(np.expm1(told), NORMAL, axis=0)
    return center, variance, np.rint(low), np.rint(high)


def _fit_trees(base: SessionModel, sessions: Sessions, truth: Ints, seed: int) -> ClassTrees:
    """Extra trees on the labelled sessions and, unless that clearly hurts, on guesses for the others."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold

    rows = tree_rows(base.counts(sessions))
    guess = base.scores(sessions) >= ANOMALY
    _, kind = np.unique(rows, axis=0, return_inverse=True)
    labelled = np.flatnonzero(truth >= 0)

    def grow(given: Ints, weight: float, trees: int) -> Any:
        known = np.bincount(kind[given], minlength=kind.max() + 1)
        bad = np.bincount(kind[given], weights=truth[given], minlength=kind.max() + 1)
        target = np.where(known[kind] > 0, 2 * bad[kind] >= known[kind], guess)
        target[given] = truth[given] == 1
        weights = np.full(len(rows), weight)
        weights[given] = 1.0
        forest = ExtraTreesClassifier(n_estimators=trees, max_depth=MAX_DEPTH, random_state=seed, n_jobs=1)
        return forest.fit(rows[weights > 0], target[weights > 0], sample_weight=weights[weights > 0])

    weight = GUESS_WEIGHT if (truth < 0).any() else 0.0
    folds = int(min(_FOLDS, (truth == 1).sum(), (truth == 0).sum()))
    if weight and folds >= 2:
        errors = {0.0: 0, weight: 0}
        for given, asked in StratifiedKFold(folds, shuffle=True, random_state=seed).split(labelled, truth[labelled]):
            for option in errors:
                forest = grow(labelled[given], option, _FOLD_TREES)
                errors[option] += int((forest.predict(rows[labelled[asked]]) != (truth[labelled[asked]] == 1)).sum())
        # A few folds with a few anomalies say little: only a clear loss takes the guesses away.
        weight = weight if errors[weight] <= errors[0.0] + 2.0 * np.sqrt(errors[0.0] + 1.0) else 0.0
    forest = grow(labelled, weight, TREES)
    return from_sklearn(forest, outputs=[int(np.flatnonzero(forest.classes_)[0])], n_features=rows.shape[1])
