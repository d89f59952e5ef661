"""Slices on counts whose right cut is known, and the promises of every plan on any counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllib.errors import NothingToTrainOn
from mllib.gate.slices import HOUR, MINUTE, Basis, LabelHour, Slices, grain_for, plan_slices

T0 = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def make_hour(
    offset: float, rows: int = 100, labelled: int = 100, positives: int = 1, grain: timedelta = HOUR
) -> LabelHour:
    return LabelHour(start=T0 + offset * grain, rows=rows, labelled=labelled, positives=positives)


def plan(hours: list[LabelHour], **override: object) -> Slices:
    arguments: dict[str, object] = {
        "first_row": hours[0].start if hours else T0,
        "last_row": hours[-1].start + timedelta(minutes=37) if hours else T0,
        "embargo": timedelta(minutes=5),
    }
    return plan_slices(hours, **(arguments | override))  # type: ignore[arg-type]


def test_ninety_days_with_plenty_of_labels_give_seven_seven_and_thirty_days() -> None:
    slices = plan([make_hour(h) for h in range(90 * 24)])
    last = T0 + 90 * DAY - HOUR + timedelta(minutes=37)
    assert slices.holdout.end == last + TICK
    assert slices.holdout.start == T0 + 83 * DAY  # 7 days before 23:37, moved up to a whole hour
    assert slices.validation.end == T0 + 83 * DAY - HOUR
    assert slices.validation.start == T0 + 76 * DAY - HOUR
    assert slices.train.end == T0 + 76 * DAY - 2 * HOUR
    assert slices.train.length == 30 * DAY
    assert slices.holdout_counts.positives == slices.validation_counts.positives == 7 * 24
    assert slices.train_counts.rows == 30 * 24 * 100
    assert slices.basis is Basis.LABELS


def test_a_short_range_gives_its_last_quarter() -> None:
    slices = plan([make_hour(h, positives=50) for h in range(40)], last_row=T0 + 40 * HOUR - TICK)
    assert slices.holdout.start == T0 + 30 * HOUR
    # A quarter of the 29 hours left, counted from the whole hour before the embargo.
    assert (slices.validation.start, slices.validation.end) == (T0 + 22 * HOUR, T0 + 29 * HOUR)
    assert (slices.train.start, slices.train.end) == (T0, T0 + 21 * HOUR)


def test_the_holdout_reaches_back_to_the_hour_that_completes_the_positives() -> None:
    hours = [make_hour(h, positives=30 if h in (60 * 24, 80 * 24) else 0) for h in range(100 * 24)]
    slices = plan(hours)
    assert slices.holdout.start == T0 + 80 * DAY
    assert slices.holdout_counts.positives == 30
    assert slices.validation.start == T0 + 60 * DAY


def test_the_holdout_never_takes_more_than_half_and_no_hour_in_vain() -> None:
    # 5 positives at 90 % of the range, 5 at 60 %, hundreds at 40 %, which are out of reach.
    hours = [make_hour(h, positives={400: 100, 600: 5, 900: 5}.get(h, 0)) for h in range(1000)]
    slices = plan(hours)
    assert slices.holdout.start == T0 + 600 * HOUR
    assert slices.holdout_counts.positives == 10
    assert slices.validation_counts.positives == 100


def test_one_class_keeps_the_usual_lengths_and_says_zero_positives() -> None:
    slices = plan([make_hour(h, positives=0) for h in range(90 * 24)])
    assert slices.holdout.start == T0 + 83 * DAY
    assert slices.holdout_counts.positives == slices.validation_counts.positives == 0
    assert slices.holdout_counts.labelled > 0


def test_training_reaches_further_back_while_there_are_too_few_rows() -> None:
    hours = [make_hour(24 * day, rows=10, labelled=10, positives=10) for day in range(200)]
    assert plan(hours, min_train_rows=300).train.start == plan(hours, min_train_rows=10).train.start
    reached = plan(hours, min_train_rows=500)
    assert reached.train_counts.rows == 500
    assert reached.train.length > 49 * DAY
    everything = plan(hours, min_train_rows=10**9)
    assert everything.train.start == T0


def test_training_may_use_unlabelled_rows_from_before_the_first_label() -> None:
    unlabelled = [make_hour(h, labelled=0, positives=0) for h in range(60 * 24)]
    labelled = [make_hour(h, positives=20) for h in range(60 * 24, 61 * 24)]
    slices = plan(unlabelled + labelled)
    assert slices.basis is Basis.LABELS
    assert slices.holdout.start == T0 + 60 * DAY + 18 * HOUR
    assert slices.train.length == 30 * DAY


def test_without_any_label_the_windows_go_by_rows() -> None:
    slices = plan([make_hour(h, labelled=0, positives=0) for h in range(90 * 24)])
    assert slices.basis is Basis.ROWS
    assert slices.holdout.start == T0 + 83 * DAY
    assert slices.holdout_counts.labelled == 0
    assert slices.train_counts.rows == 30 * 24 * 100


def test_labels_within_one_hour_fall_back_to_rows_and_all_land_in_the_holdout() -> None:
    hours = [make_hour(h, labelled=0, positives=0) for h in range(10 * 24)] + [make_hour(10 * 24, positives=40)]
    slices = plan(hours)
    assert slices.basis is Basis.ROWS
    assert slices.holdout_counts.labelled == 100
    assert slices.validation_counts.labelled == 0


def test_labels_in_the_far_past_end_all_windows_there() -> None:
    labelled = [make_hour(h, positives=10) for h in range(20 * 24)]
    later = [make_hour(h, labelled=0, positives=0) for h in range(20 * 24, 400 * 24)]
    slices = plan(labelled + later)
    assert slices.holdout.end == T0 + 20 * DAY
    assert slices.holdout_counts.labelled == slices.holdout_counts.rows


def test_one_hour_of_rows_is_cut_at_whole_minutes() -> None:
    minutes = [make_hour(m, rows=50, labelled=50, positives=5, grain=MINUTE) for m in range(60)]
    slices = plan(minutes, grain=MINUTE, last_row=minutes[-1].start, embargo=timedelta(minutes=5))
    assert slices.holdout.start == T0 + 45 * MINUTE
    assert slices.holdout.end == T0 + 59 * MINUTE + TICK
    assert slices.validation.end == T0 + 40 * MINUTE
    assert grain_for(T0, T0 + HOUR) == MINUTE
    assert grain_for(T0, T0 + DAY) == HOUR


@pytest.mark.parametrize(
    ("hours", "override"),
    [
        ([], {}),
        ([make_hour(0)], {}),
        ([make_hour(5)], {"first_row": T0 + 6 * HOUR, "last_row": T0 + 7 * HOUR}),
        ([make_hour(h) for h in range(48)], {"embargo": 2 * DAY}),
    ],
    ids=["no rows", "one hour", "all rows outside", "embargo longer than the range"],
)
def test_what_cannot_be_cut_says_what_to_do(hours: list[LabelHour], override: dict[str, object]) -> None:
    with pytest.raises(NothingToTrainOn, match=r"Ingest logs"):
        plan(hours, **override)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the grain"):
        plan([make_hour(0.5)])
    with pytest.raises(ValueError, match="sorted"):
        plan([make_hour(1), make_hour(0)])
    with pytest.raises(ValueError, match="negative"):
        plan([make_hour(0)], embargo=-HOUR)
    with pytest.raises(ValueError, match="positives <= labelled"):
        make_hour(0, labelled=1, positives=2)


buckets = st.lists(
    st.tuples(st.integers(1, 72), st.integers(1, 50), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=300)
@given(
    steps=buckets,
    grain=st.sampled_from([HOUR, MINUTE]),
    embargo_minutes=st.integers(0, 300),
    min_positives=st.integers(0, 60),
    offset=st.floats(0, 0.999),
)
def test_any_plan_is_ordered_disjoint_and_free_of_leakage(
    steps: list[tuple[int, int, int, int]], grain: timedelta, embargo_minutes: int, min_positives: int, offset: float
) -> None:
    hours, at = [], 0
    for step, rows, labelled, positives in steps:
        at += step
        labelled = min(labelled, rows)
        hours.append(make_hour(at, rows, labelled, min(positives, labelled), grain))
    embargo = timedelta(minutes=embargo_minutes)
    try:
        slices = plan(
            hours,
            grain=grain,
            embargo=embargo,
            min_positives=min_positives,
            last_row=hours[-1].start + offset * grain,
        )
    except NothingToTrainOn:
        return
    train, validation, holdout = slices.train, slices.validation, slices.holdout
    assert train.end + embargo <= validation.start
    assert validation.end + embargo <= holdout.start
    assert all((border - T0) % grain == timedelta(0) for border in (train.start, train.end, holdout.start))

    has_label = [hour for hour in hours if hour.labelled]
    if has_label:
        assert has_label[-1].start in holdout
    first = (has_label if slices.basis is Basis.LABELS else hours)[0].start
    span = holdout.end - first
    assert holdout.length <= span / 2
    assert validation.length <= (validation.end - first) / 2

    for window, counts in (
        (train, slices.train_counts),
        (validation, slices.validation_counts),
        (holdout, slices.holdout_counts),
    ):
        inside = [hour for hour in hours if hour.start in window]
        assert counts.rows == sum(hour.rows for hour in inside)
        assert counts.labelled == sum(hour.labelled for hour in inside)
        assert counts.positives == sum(hour.positives for hour in inside)
    assert slices.train_counts.rows > 0

    in_reach = sum(hour.positives for hour in hours if holdout.end - span / 2 <= hour.start < holdout.end)
    assert slices.holdout_counts.positives >= min(min_positives, in_reach)
