"""What the pictures of a report show, against counts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mllib.gate.evaluation import binary_metrics
from mllib.gate.segments import Dimension, compare_segments
from mllib.report import charts, measures
from mllib.report.contents import Rows


def make_rows(
    positive: list[int], new: list[float], old: list[float] | None = None, *, threshold: float = 0.5, **how: Any
) -> Rows:
    """Rows with the services a and b in turns, each in a burst of its own."""
    count = len(positive)
    service = Dimension(codes=np.arange(count, dtype=np.int64) % 2, names=("a", "b"))
    scores = [np.array(new)] if old is None else [np.array(new), np.array(old)]
    values: dict[str, Any] = {
        "ts_us": np.arange(count, dtype=np.int64),
        "log_ids": np.arange(count, dtype=np.int64),
        "positive": np.array(positive, dtype=np.bool_),
        "clusters": np.arange(count, dtype=np.int64),
        "dimensions": {"service": service},
        "scores": tuple(scores),
        "thresholds": (threshold,) * len(scores),
    }
    return Rows(**{**values, **how})


def test_the_curve_goes_through_every_threshold_there_is() -> None:
    positive = np.array([1, 1, 0, 1, 0, 0], dtype=np.bool_)
    curve = measures.precision_recall(positive, np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), 0.65)

    assert curve is not None
    assert curve.recall == pytest.approx((1 / 3, 2 / 3, 1))
    assert curve.precision == pytest.approx((1, 1, 3 / 4))
    assert curve.at_threshold == pytest.approx((2 / 3, 2 / 3))


def test_equal_scores_are_flagged_together() -> None:
    """However the rows are ordered, a model that gives all the same score has the precision of flagging all."""
    for positive in ([1, 0, 0, 0], [0, 0, 0, 1]):
        curve = measures.precision_recall(np.array(positive, dtype=np.bool_), np.full(4, 0.3), 0.5)
        assert curve is not None
        assert (curve.recall, curve.precision, curve.at_threshold) == ((1.0,), (0.25,), None)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(7)
    positive = rng.random(20_000) < 0.1
    scores = rng.random(20_000) + positive * 0.3
    curve = measures.precision_recall(positive, scores, 0.9)

    assert curve is not None
    assert len(curve.recall) == measures.CURVE_POINTS
    assert curve.recall[-1] == 1.0
    assert list(curve.recall) == sorted(set(curve.recall))
    for recall, precision in zip(curve.recall, curve.precision, strict=True):
        found = round(recall * positive.sum())
        threshold = np.sort(scores[positive])[::-1][found - 1]
        assert precision == pytest.approx(found / (scores >= threshold).sum())


def test_without_an_anomaly_there_is_no_curve() -> None:
    assert measures.precision_recall(np.zeros(3, dtype=np.bool_), np.ones(3), 0.5) is None
    assert measures.precision_recall(np.zeros(0, dtype=np.bool_), np.zeros(0), 0.5) is None


def test_the_four_outcomes_add_up() -> None:
    counts = measures.confusion(np.array([1, 1, 0, 0, 0], dtype=np.bool_), np.array([1, 0, 1, 0, 0], dtype=np.bool_))

    assert counts == measures.Confusion(hits=1, misses=1, false_alarms=1, quiet=2)


def test_who_is_right_is_counted_in_all_and_by_service() -> None:
    #                     a    b    a    b    a    b
    rows = make_rows([1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1])

    assert measures.agreement(rows) == measures.Agreement(
        name="all", both_right=2, only_candidate=2, only_champion=1, both_wrong=1
    )
    assert measures.agreement_by(rows, "service") == (
        measures.Agreement(name="b", both_right=1, only_candidate=2, only_champion=0, both_wrong=0),
        measures.Agreement(name="a", both_right=1, only_candidate=0, only_champion=1, both_wrong=1),
    )


def test_services_on_which_the_models_agree_are_not_listed() -> None:
    rows = make_rows([1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0])

    assert [part.name for part in measures.agreement_by(rows, "service")] == ["b"]


def test_slices_have_the_f1_that_the_verdict_goes_by_and_an_interval_around_it() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(4_000) < 0.2
    new = np.where(rng.random(4_000) < 0.9, positive, ~positive).astype(float)
    old = np.where(rng.random(4_000) < 0.8, positive, ~positive).astype(float)
    rows = make_rows(positive.tolist(), new.tolist(), old.tolist())
    compared = compare_segments(rows.positive, rows.flags(0), rows.flags(1), rows.clusters, rows.dimensions)

    found = measures.slice_f1(rows, compared)

    assert [part.value for part in found] == [segment.value for segment in compared]
    for part, segment in zip(found, compared, strict=True):
        among = rows.dimensions["service"].codes == rows.dimensions["service"].names.index(part.value)
        assert part.candidate.f1 == binary_metrics(positive[among], rows.flags(0)[among]).f1 == segment.candidate_f1
        assert part.champion is not None
        assert part.champion.f1 == segment.champion_f1
        assert part.candidate.lower is not None
        assert part.candidate.upper is not None
        assert 0 < part.candidate.lower < part.candidate.f1 < part.candidate.upper < 1
        assert part.difference == measures.F1Interval(f1=segment.difference, lower=segment.lower, upper=segment.upper)


def test_a_first_candidate_has_slices_without_a_rival_and_those_without_anomalies_are_left_out() -> None:
    found = measures.slice_f1(make_rows([1, 0] * 20, [1, 0] * 20), ())

    assert [(part.value, part.champion, part.difference) for part in found] == [("a", None, None)]


def test_examples_come_from_different_bursts_first_and_in_order_of_time() -> None:
    scores = [0.99, 0.98, 0.97, 0.96, 0.60, 0.61, 0.1]
    rows = make_rows([1] * 7, scores, clusters=np.array([1, 1, 1, 1, 2, 3, 4]))

    assert measures.pick(rows, rows.flags(0), most=3).tolist() == [0, 4, 5]
    assert measures.pick(rows, rows.flags(0), most=5).tolist() == [0, 1, 2, 4, 5]
    assert measures.pick(rows, ~rows.positive).tolist() == []


def test_marks_stay_inside_the_drawing() -> None:
    curve = measures.Curve(recall=(0.5, 1.0), precision=(1.0, 0.0), at_threshold=(1.0, 0.0), threshold=0.5)
    line = charts.line("Candidate", "candidate", curve)

    assert (
        line.path == f"M{charts.x(0.0)} {charts.y(1.0)}V{charts.y(1.0)}H{charts.x(0.5)}V{charts.y(0.0)}H{charts.x(1.0)}"
    )
    assert line.mark == (charts.x(1), charts.y(0))
    assert 0 < charts.x(0) < charts.x(1) < charts.WIDTH
    assert 0 < charts.y(1) < charts.y(0) < charts.HEIGHT
    assert charts.whisker(measures.F1Interval(f1=1.0, lower=-0.2, upper=1.4)).lower == 6
