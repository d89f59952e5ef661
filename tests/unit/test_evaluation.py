"""Figures against scikit-learn and against brute force, on data whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mllib.gate.evaluation import (
    BootstrapDifference,
    best_threshold,
    binary_metrics,
    flag_everything_f1,
    holdout_hash,
    paired_cluster_bootstrap,
    smallest_detectable_difference,
    widening,
)

labelled_scores = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), max_size=40)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    data = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return data[:, 0], data[:, 1] / 4


def brute_f1(labels: np.ndarray, flags: np.ndarray) -> float:
    divisor = flags.sum() + labels.sum()
    return float(2 * (labels & flags).sum() / divisor) if divisor else 0.0


@settings(deadline=None)
@given(labelled_scores.filter(lambda pairs: {0, 1} == {label for label, _ in pairs}))
def test_figures_equal_those_of_scikit_learn_ties_included(pairs: list[tuple[int, int]]) -> None:
    labels, scores = arrays(pairs)
    flags = scores >= 0.25
    ours = binary_metrics(labels, flags, scores)
    assert ours.roc_auc == pytest.approx(sk.roc_auc_score(labels, scores))
    assert ours.average_precision == pytest.approx(sk.average_precision_score(labels, scores))
    assert ours.f1 == pytest.approx(sk.f1_score(labels, flags, zero_division=0))
    assert ours.accuracy == pytest.approx(sk.accuracy_score(labels, flags))
    assert ours.recall == pytest.approx(sk.recall_score(labels, flags))
    if flags.any():
        assert ours.precision == pytest.approx(sk.precision_score(labels, flags))
    else:
        assert ours.precision is None
    assert ours.alert_rate == pytest.approx(flags.mean())
    assert (ours.rows, ours.positives, ours.alarms) == (len(labels), labels.sum(), flags.sum())


def test_what_is_undefined_is_none() -> None:
    nothing = binary_metrics(np.zeros(0, int), np.zeros(0, bool), np.zeros(0))
    assert (nothing.rows, nothing.f1) == (0, 0.0)
    assert nothing.accuracy is nothing.alert_rate is nothing.precision is nothing.recall is nothing.roc_auc is None
    normal = binary_metrics(np.zeros(3, int), np.array([0, 1, 0]), np.array([0.1, 0.2, 0.2]))
    assert (normal.precision, normal.recall, normal.f1) == (0.0, None, 0.0)
    assert normal.roc_auc is normal.average_precision is None
    anomalous = binary_metrics(np.ones(3, int), np.array([0, 1, 0]), np.array([0.1, 0.2, 0.2]))
    assert (anomalous.average_precision, anomalous.roc_auc) == (1.0, None)
    quiet = binary_metrics(np.array([0, 1]), np.array([0, 0]))
    assert (quiet.precision, quiet.recall, quiet.f1, quiet.roc_auc) == (None, 0.0, 0.0, None)


def test_flag_everything_is_the_f1_of_flagging_everything() -> None:
    labels = np.arange(50) % 10 == 0
    assert flag_everything_f1(50, 5) == binary_metrics(labels, np.ones(50)).f1
    assert flag_everything_f1(0, 0) == 0.0


@settings(deadline=None)
@given(labelled_scores)
def test_the_threshold_is_the_highest_of_the_best_cut_points(pairs: list[tuple[int, int]]) -> None:
    labels, scores = arrays(pairs)
    found = best_threshold(scores, labels)
    if len(set(labels.tolist())) < 2:
        assert found is None
        return
    f1s = {cut: brute_f1(labels == 1, scores >= cut) for cut in set(scores.tolist())}
    assert found == max(cut for cut, f1 in f1s.items() if f1 == max(f1s.values()))


def test_the_threshold_flags_from_itself_upwards() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 1, 0, 1])
    assert best_threshold(scores, labels) == 0.4
    # Flagging 1 of 1, and 2 of 4, both give 2/3: the quieter cut is taken.
    assert best_threshold(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 0, 1])) == 4.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: best_threshold(np.array([0.1, np.nan]), np.array([0, 1])),
        lambda: best_threshold(np.array([0.1]), np.array([0, 1])),
        lambda: binary_metrics(np.array([0, 2]), np.array([0, 1])),
        lambda: binary_metrics(np.array([0, 1]), np.array([0, 1, 1])),
        lambda: binary_metrics(np.array([0, np.nan]), np.array([0, 1])),
        lambda: paired_cluster_bootstrap(*[np.zeros(0, int)] * 4),
        lambda: paired_cluster_bootstrap(*[np.zeros(3, int)] * 3, np.zeros(2, int)),
        lambda: paired_cluster_bootstrap(*[np.zeros(3, int)] * 3, np.zeros(3)),
        lambda: holdout_hash(np.array([1, 1]), np.array([7, 7]), np.array([0, 1])),
        lambda: holdout_hash(np.array([1, 2]), np.array([7, 8]), np.array([0])),
    ],
)
def test_input_that_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"NaN|one score|0 or 1|one value|one cluster|integers|twice|one label"):
        call()


def test_the_hash_is_of_the_rows_and_labels_not_of_their_order_or_type() -> None:
    ts, ids, labels = np.array([5, 5, 1]), np.array([2, 1, 9]), np.array([1, 0, 0])
    whole = holdout_hash(ts, ids, labels)
    order = np.array([1, 2, 0])
    assert holdout_hash(ts[order], ids[order], labels[order]) == whole
    assert holdout_hash(ts, ids.astype(np.int32), labels.astype(bool)) == whole
    others = {
        holdout_hash(ts, ids, np.array([0, 1, 0])),
        holdout_hash(ts + 1, ids, labels),
        holdout_hash(ts, ids + 1, labels),
        holdout_hash(ts[1:], ids[1:], labels[1:]),
        holdout_hash(ts[:0], ids[:0], labels[:0]),
        holdout_hash(ts, ids, np.array(["b", "a", "a"])),
        holdout_hash(ts, ids, np.array(["", "ba", "a"])),
    }
    assert len(others) == 7
    assert whole not in others


def make_bursts(seed: int, clusters: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of 1 to 12 rows, in which labels and both models' flags go mostly together."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters) * 7, rng.integers(1, 13, clusters))
    of_cluster = np.unique(codes, return_inverse=True)[1]
    labels = (rng.random(clusters) < 0.4)[of_cluster]
    candidate = (rng.random(clusters) < 0.8)[of_cluster] & labels | (rng.random(codes.size) < 0.05)
    champion = (rng.random(clusters) < 0.6)[of_cluster] & labels | (rng.random(codes.size) < 0.05)
    return labels, candidate, champion, codes


def percentiles(found: BootstrapDifference) -> tuple[float, float]:
    """The interval before it was widened for few clusters."""
    assert found.lower is not None
    assert found.upper is not None
    assert found.effective_clusters is not None
    wider = widening(found.effective_clusters)
    below, above = (found.difference - found.lower) / wider, (found.upper - found.difference) / wider
    return found.difference - below, found.difference + above


def test_the_bootstrap_agrees_with_resampling_clusters_row_by_row() -> None:
    labels, candidate, champion, codes = make_bursts(1)
    ours = paired_cluster_bootstrap(labels, candidate, champion, codes, resamples=4000)
    rows_of = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    rng = np.random.default_rng(99)
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])
        drawn.append(brute_f1(labels[rows], candidate[rows]) - brute_f1(labels[rows], champion[rows]))
    assert ours.difference == pytest.approx(brute_f1(labels, candidate) - brute_f1(labels, champion))
    lower, upper = percentiles(ours)
    assert ours.standard_error == pytest.approx(np.std(drawn), rel=0.06)
    spread = np.std(drawn)
    assert abs(lower - np.quantile(drawn, 0.05)) < 0.15 * spread
    assert abs(upper - np.quantile(drawn, 0.95)) < 0.15 * spread
    # Rows taken for independent would look much surer: clusters are what makes the interval honest.
    by_row = paired_cluster_bootstrap(labels, candidate, champion, np.arange(labels.size), resamples=4000)
    assert by_row.standard_error is not None
    assert by_row.standard_error < 0.6 * spread


def test_the_lower_bound_lets_an_equal_candidate_through_about_once_in_twenty() -> None:
    passed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of_cluster = np.repeat(np.arange(300), 4)
        labels = (rng.random(300) < 0.3)[of_cluster]
        candidate, champion = ((rng.random(300) < np.where(labels[::4], 0.7, 0.05))[of_cluster] for _ in range(2))
        bound = paired_cluster_bootstrap(labels, candidate, champion, of_cluster, resamples=400, seed=seed).lower
        passed += bound is not None and bound > 0
    # 15 are expected; 4 to 30 leaves room for more than three standard deviations and for the small sample.
    assert 4 <= passed <= 30


def test_a_seed_gives_one_interval_whatever_the_order_of_rows_and_names_of_clusters() -> None:
    labels, candidate, champion, codes = make_bursts(2)
    first = paired_cluster_bootstrap(labels, candidate, champion, codes, seed=5)
    order = np.random.default_rng(0).permutation(labels.size)
    shuffled = paired_cluster_bootstrap(labels[order], candidate[order], champion[order], codes[order], seed=5)
    renamed = paired_cluster_bootstrap(labels, candidate, champion, 10_000 - codes, seed=5)
    assert first == shuffled == renamed
    assert first != paired_cluster_bootstrap(labels, candidate, champion, codes, seed=6)


def test_many_distinct_clusters_drawn_in_blocks_give_the_interval_of_one_draw() -> None:
    # Clusters of 1 to 2,500 rows have 2,500 distinct counts, more than fit into one block of draws.
    n = 2500
    sizes = np.arange(1, n + 1)
    codes = np.repeat(sizes, sizes)
    labels = codes % 2 == 0
    champion = np.arange(codes.size) % 3 == 0
    found = paired_cluster_bootstrap(labels, labels, champion, codes, seed=3)
    columns = (labels, labels, champion & labels, champion, labels)
    hits, alarms, old_hits, old_alarms, positives = (np.bincount(codes, weights=c)[1:] for c in columns)
    vectors = np.unique(np.stack([hits, alarms, old_hits, old_alarms, positives], axis=1), axis=0, return_counts=True)
    assert 2000 * vectors[1].size > 2_000_000
    totals = np.random.default_rng(3).multinomial(n, vectors[1] / n, size=2000) @ vectors[0]
    new = 2 * totals[:, 0] / (totals[:, 1] + totals[:, 4])
    old = 2 * totals[:, 2] / (totals[:, 3] + totals[:, 4])
    assert percentiles(found) == pytest.approx(tuple(np.quantile(new - old, [0.05, 0.95])))


def test_identical_models_differ_by_nothing() -> None:
    labels, candidate, _, codes = make_bursts(3)
    same = paired_cluster_bootstrap(labels, candidate, candidate, codes)
    assert (same.difference, same.lower, same.upper) == (0.0, 0.0, 0.0)
    assert smallest_detectable_difference(same) is None


@pytest.mark.parametrize(("clusters", "bounded"), [(1, False), (4, False), (5, True)])
def test_too_few_clusters_give_no_interval(clusters: int, bounded: bool) -> None:
    codes = np.arange(40) % clusters
    labels = np.arange(40) % 4 < 2
    found = paired_cluster_bootstrap(labels, labels, ~labels, codes)
    assert found.clusters == clusters
    assert found.difference == 1.0
    assert (found.lower is not None) == bounded


def test_no_alarm_and_no_anomaly_is_an_f1_of_zero_in_every_resample() -> None:
    nothing = np.zeros(50, bool)
    found = paired_cluster_bootstrap(nothing, nothing, nothing, np.arange(50))
    assert (found.difference, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_the_smallest_detectable_difference_follows_its_formula() -> None:
    """The bound of the gate is widened, so a difference must be larger to be seen where few clusters tell."""
    spread = BootstrapDifference(
        difference=0.1, lower=0.0, upper=0.2, standard_error=0.02, resamples=1, clusters=9, effective_clusters=5.0
    )
    # Student's t with 4 degrees of freedom has its 95 % quantile at 2.132.
    assert smallest_detectable_difference(spread) == pytest.approx((2.132 + 0.84) * 0.02, rel=1e-3)
    many = replace(spread, effective_clusters=1e6)
    assert smallest_detectable_difference(many) == pytest.approx((1.645 + 0.84) * 0.02, rel=1e-3)


@pytest.mark.parametrize("clusters", [3.0, 3.7, 5.0, 12.4, 80.0, 900.0])
def test_few_clusters_widen_the_interval_as_students_t_does(clusters: float) -> None:
    assert widening(clusters) == pytest.approx(stats.t.ppf(0.95, clusters - 1) / stats.norm.ppf(0.95), rel=1e-4)


def test_the_widening_has_bounds() -> None:
    assert widening(0.0) == widening(2.0) == widening(3.0)
    assert widening(1e9) == pytest.approx(1.0, abs=0.001)


def test_effective_clusters_are_those_that_tell_the_models_apart() -> None:
    # 20 bursts of 5 anomalous lines: both models find 12 of them, and each another 4.
    codes = np.repeat(np.arange(500), 5)
    labels = codes < 20
    candidate, champion = codes < 16, (codes < 12) | ((codes >= 16) & labels)
    found = paired_cluster_bootstrap(labels, candidate, champion, codes)
    assert (found.clusters, found.difference) == (500, 0.0)
    assert found.effective_clusters == pytest.approx(8.0)
    # One burst of 50 lines outweighs all others.
    codes[np.flatnonzero(codes == 13)[0] :][:50] = 13
    labels, candidate, champion = codes < 20, codes < 16, (codes < 12) | ((codes >= 16) & (codes < 20))
    heavy = paired_cluster_bootstrap(labels, candidate, champion, codes)
    assert heavy.effective_clusters is not None
    assert heavy.effective_clusters < 2


def test_three_bursts_that_agree_prove_nothing_and_six_do() -> None:
    """Chance alone makes 3 bursts agree 1 time in 8, and 6 of them 1 time in 64."""
    codes = np.repeat(np.arange(400), 10)
    labels = codes < 20
    for bursts, sure in ((3, False), (6, True)):
        champion = labels & (codes >= bursts)
        found = paired_cluster_bootstrap(labels, labels, champion, codes)
        assert found.lower is not None
        assert (found.lower > 0) is sure


def test_bounds_stay_within_what_a_difference_can_be() -> None:
    labels = np.arange(60) % 6 == 0
    found = paired_cluster_bootstrap(labels, labels, labels & (np.arange(60) < 10), np.arange(60) // 6)
    assert found.upper is not None
    assert found.upper <= 1.0
