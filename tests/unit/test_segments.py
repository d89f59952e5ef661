"""Both models by service and level, on rows where it is known who loses."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from mllib.gate.evaluation import binary_metrics, paired_cluster_bootstrap
from mllib.gate.segments import MAX_VALUES, NONE, OTHER, Dimension, compare_segments, fallen

ROWS = 6_000


def make_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(ROWS) < 0.1
    champion = rng.random(ROWS) < np.where(labels, 0.8, 0.01)
    return labels, champion, rng.integers(0, 600, ROWS)


def of_service(codes: np.ndarray, *names: str) -> dict[str, Dimension]:
    return {"service": Dimension(codes=codes.astype(np.int64), names=names)}


def test_figures_are_those_of_the_rows_of_the_segment_alone() -> None:
    labels, champion, clusters = make_rows()
    candidate = np.roll(champion, 1) | labels
    codes = np.arange(ROWS) % 3
    found = compare_segments(labels, candidate, champion, clusters, of_service(codes, "a", "b", "c"))
    assert [(s.dimension, s.value, s.rows) for s in found] == [("service", v, 2_000) for v in "abc"]
    for code, segment in enumerate(found):
        rows = codes == code
        alone = paired_cluster_bootstrap(labels[rows], candidate[rows], champion[rows], clusters[rows])
        assert segment.positives == labels[rows].sum()
        assert segment.candidate_f1 == binary_metrics(labels[rows], candidate[rows]).f1
        assert segment.champion_f1 == binary_metrics(labels[rows], champion[rows]).f1
        assert (segment.difference, segment.lower, segment.upper) == (alone.difference, alone.lower, alone.upper)


def test_a_service_that_is_served_worse_is_found_though_the_whole_gains() -> None:
    labels, champion, clusters = make_rows()
    codes = np.arange(ROWS) % 3
    candidate = np.where(codes == 1, champion & (np.arange(ROWS) % 2 == 0), labels)
    found = compare_segments(labels, candidate, champion, clusters, of_service(codes, "a", "b", "c"))
    assert binary_metrics(labels, candidate).f1 > binary_metrics(labels, champion).f1
    assert [s.value for s in fallen(found)] == ["b"]
    assert fallen(found, margin=0.9) == ()
    assert all(s.p_fall == 1.0 for s in found if s.value != "b")


def test_a_fall_that_may_be_chance_or_is_small_breaks_nothing() -> None:
    labels, champion, clusters = make_rows()
    whole = of_service(np.zeros(ROWS, dtype=np.int64), "a")
    lost = np.flatnonzero(labels & champion)
    candidate = champion.copy()
    candidate[lost[:3]] = False
    small = compare_segments(labels, candidate, champion, clusters, whole)[0]
    assert -0.05 < small.difference < 0
    # One burst of a third of all anomalies: a great fall, but one throw of a coin.
    clusters[lost[: lost.size // 3]] = 601
    candidate[lost[: lost.size // 3]] = False
    great = compare_segments(labels, candidate, champion, clusters, whole)[0]
    assert great.difference < -0.1
    assert great.p_fall == pytest.approx(0.5, abs=0.05)
    assert fallen((small, great)) == ()


def test_looking_at_many_segments_asks_for_more_in_each() -> None:
    labels = np.tile(np.arange(20) < 10, 400)
    clusters = np.arange(labels.size) // 2
    codes = np.arange(labels.size) // 400
    champion = labels.copy()
    candidate = labels.copy()
    # Segment 0 loses 6 of its clusters and nothing else differs: chance 1 in 64, but 20 segments were looked at.
    lost = np.flatnonzero(labels & (codes == 0))[:12]
    candidate[lost] = False
    names = tuple(f"s{n:02}" for n in range(20))
    alone = compare_segments(
        labels[codes == 0], candidate[codes == 0], champion[codes == 0], clusters[codes == 0],
        of_service(codes[codes == 0], *names),
    )  # fmt: skip
    among = compare_segments(labels, candidate, champion, clusters, of_service(codes, *names))
    assert alone[0].p_fall == pytest.approx(1 / 64, abs=0.01)
    assert among[0].p_fall == pytest.approx(min(1.0, 20 * (alone[0].p_fall or 0)))
    assert alone[0].difference == among[0].difference


def test_fewer_than_thirty_anomalies_are_unknown_and_never_decide() -> None:
    labels = np.repeat([True, False], [29 + 30, 1_000])
    codes = np.concatenate([np.zeros(29), np.ones(30), np.arange(1_000) % 2])
    candidate, champion = np.zeros(labels.size, dtype=bool), labels
    found = {
        s.value: s
        for s in compare_segments(labels, candidate, champion, np.arange(labels.size), of_service(codes, "a", "b"))
    }
    assert (found["a"].known, found["a"].p_fall, found["a"].difference) == (False, None, -1.0)
    assert found["b"].known
    assert [s.value for s in fallen(tuple(found.values()))] == ["b"]


def test_rare_values_share_a_segment_and_rows_without_one_have_their_own() -> None:
    codes = np.concatenate([np.repeat(np.arange(MAX_VALUES + 5), np.arange(MAX_VALUES + 5, 0, -1) * 3), [-1] * 7])
    names = tuple(f"s{n:02}" for n in range(MAX_VALUES + 5))
    labels = np.arange(codes.size) % 4 == 0
    found = compare_segments(labels, labels, labels, np.arange(codes.size), of_service(codes, *names))
    assert [s.value for s in found] == [*names[:MAX_VALUES], OTHER, NONE]
    assert [s.rows for s in found][-2:] == [3 * (5 + 4 + 3 + 2 + 1), 7]
    assert sum(s.rows for s in found) == codes.size
    assert sum(s.positives for s in found) == labels.sum()


def test_the_order_of_rows_changes_nothing() -> None:
    labels, champion, clusters = make_rows(3)
    candidate = np.roll(champion, 5) & labels
    codes = np.arange(ROWS) % 4 - 1
    order = np.random.default_rng(1).permutation(ROWS)
    first = compare_segments(labels, candidate, champion, clusters, of_service(codes, "a", "b", "c"))
    second = compare_segments(
        labels[order], candidate[order], champion[order], clusters[order], of_service(codes[order], "a", "b", "c")
    )
    assert [asdict(s) for s in first] == [asdict(s) for s in second]


def test_codes_that_are_not_one_per_row_are_refused() -> None:
    labels = np.array([0, 1])
    with pytest.raises(ValueError, match="one cluster and one service per row"):
        compare_segments(labels, labels, labels, np.arange(2), of_service(np.zeros(3), "a"))
