import itertools
import math
import random
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllib.errors import BadInput
from mllib.features.stream import with_context
from mllib.features.windows import WINDOW, Windows, windows
from tests.factories import START, empty_logs, in_chunks, make_frame, make_logs

NAMES = tuple(name for name in Windows.__dataclass_fields__ if name != "previous")


def all_windows(frame: pl.DataFrame) -> np.ndarray:
    """Shape (claimed rows, 7)."""
    found = windows(frame, np.flatnonzero(frame["claimed"].to_numpy()))
    return np.stack([getattr(found, name) for name in NAMES], axis=1)


def naive(frame: pl.DataFrame) -> np.ndarray:
    """The definition, row by row, in exact arithmetic."""
    rows = frame.rows(named=True)
    out = []
    for place, row in enumerate(rows):
        if not row["claimed"]:
            continue
        window = [other for other in rows[: place + 1] if other["ts"] > row["ts"] - WINDOW]
        own = [other for other in window if other["service"] == row["service"]]
        since = (row["ts"] - own[-2]["ts"]).total_seconds() if len(own) > 1 else 300.0
        times = sorted(
            round(min(value, 3_600_000.0) * 1000)
            for other in own
            if (value := other["response_time_ms"]) is not None and math.isfinite(value) and value >= 0
        )
        mean = std = median = 0.0
        if times:
            mean = sum(times) / len(times)
            deviations = len(times) * sum(value * value for value in times) - sum(times) ** 2
            std = math.sqrt(deviations) / len(times)
            median = (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2
        errors = sum(
            (other["level"] or "").upper() in {"ERROR", "FATAL", "SEVERE"} or (other["status_code"] or 0) >= 500
            for other in own
        )
        out.append([since, len(window), mean / 1e3, std / 1e3, median / 1e3, errors / len(own), len(own)])
    return np.array(out).reshape(-1, len(NAMES))


RESPONSES = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.001, 7.25, 7.25, 1e9, 3.6e6, -1.0, math.inf, math.nan, 123456.789]),
    st.floats(0, 1e4),
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 50_000_000, 299_999_999, 300_000_000]),  # microseconds since the row before
        st.sampled_from(["a", "b", None]),
        st.sampled_from(["INFO", "error", "FATAL", "Severe", "odd", None]),
        RESPONSES,
        st.sampled_from([200, 499, 500, 599, None]),
        st.booleans(),
    ),
    max_size=40,
)


def frame_of(rows: list[tuple]) -> pl.DataFrame:
    if not rows:
        return empty_logs()
    steps, services, levels, responses, statuses, claimed = (list(column) for column in zip(*rows, strict=True))
    return make_frame(
        log_id=list(range(len(rows))),
        ts=[START + timedelta(microseconds=total) for total in itertools.accumulate(steps)],
        service=pl.Series(services, dtype=pl.String),
        level=pl.Series(levels, dtype=pl.String),
        response_time_ms=pl.Series(responses, dtype=pl.Float64),
        status_code=pl.Series(statuses, dtype=pl.Int32),
        claimed=claimed,
    )


@settings(deadline=None, max_examples=150)
@given(ROWS)
def test_windows_equal_their_definition(rows):
    frame = frame_of(rows)
    np.testing.assert_allclose(all_windows(frame), naive(frame), rtol=1e-12, atol=1e-9)


def test_windows_of_an_ordinary_stream_equal_their_definition():
    frame = make_logs(600, span_s=1500)
    np.testing.assert_allclose(all_windows(frame), naive(frame), rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(ROWS, st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_windows_do_not_depend_on_chunks(rows, sizes):
    frame = frame_of(rows)
    chunks = [all_windows(chunk) for chunk in with_context(in_chunks(frame, *sizes), WINDOW)]
    assert np.concatenate([np.empty((0, len(NAMES))), *chunks]).tobytes() == all_windows(frame).tobytes()


def test_windows_of_a_busy_stream_do_not_depend_on_chunks():
    # Values of very different size: floating running totals would not come back to the same bits.
    frame = make_logs(20_000, span_s=3_000)
    scale = pl.Series(np.random.default_rng(5).choice([1e-3, 1.0, 1e5], frame.height))
    frame = frame.with_columns(response_time_ms=pl.col("response_time_ms") * scale)
    whole = all_windows(frame)
    for sizes in ((4_999,), (1, 1_000), (19_999, 1)):
        parts = [all_windows(chunk) for chunk in with_context(in_chunks(frame, *sizes), WINDOW)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_deviation_is_exact_where_the_mean_dwarfs_it():
    equal = make_frame(log_id=[1, 2, 3], ts=[START] * 3, response_time_ms=[3_599_999.999] * 3)
    assert all_windows(equal)[:, NAMES.index("response_time_std_5min")].tolist() == [0, 0, 0]
    near = equal.with_columns(response_time_ms=pl.Series([3_599_999.998, 3_599_999.999, 3_599_999.998]))
    assert all_windows(near)[1, NAMES.index("response_time_std_5min")] == pytest.approx(0.0005, rel=1e-12)


def test_the_row_before_is_the_services_last_within_five_minutes():
    seconds, services = [0, 1, 2, 2, 302, 310], ["a", "b", "a", None, "a", "b"]
    frame = make_frame(log_id=list(range(6)), ts=[START + timedelta(seconds=s) for s in seconds], service=services)
    # The third row is exactly five minutes before the fifth, hence outside; a missing service is one of its own.
    assert windows(frame, np.arange(6)).previous.tolist() == [-1, -1, 0, -1, -1, -1]
    assert windows(frame[1:5], np.array([1, 3])).previous.tolist() == [-1, -1]
    assert windows(frame[:3], np.array([2])).previous.tolist() == [0]


def test_deviation_survives_sums_of_squares_beyond_64_bits():
    values = [0.0, 3_600_000.0] * 500
    frame = make_frame(log_id=list(range(1000)), ts=[START] * 1000, response_time_ms=values)
    assert all_windows(frame)[-1, NAMES.index("response_time_std_5min")] == pytest.approx(1_800_000, rel=1e-12)


def test_context_is_the_five_minutes_before_and_nothing_else():
    # The second chunk starts at the third row: the first is exactly five minutes before it, and outside.
    seconds = [0, 1, 300, 310]
    frame = make_frame(log_id=[1, 2, 3, 4], ts=[START + timedelta(seconds=s) for s in seconds], message="m")
    second = list(with_context(in_chunks(frame, 2), WINDOW))[1]
    assert second.select("log_id", "claimed", "message").rows() == [(2, False, "m"), (3, True, "m"), (4, True, "m")]


def test_context_keeps_no_more_than_its_window():
    frame = make_logs(5_000, span_s=50_000)  # 30 rows in five minutes
    sizes = [chunk.height for chunk in with_context(in_chunks(frame, 100), WINDOW)]
    assert len(sizes) == 50
    assert max(sizes) < 100 + 80


def test_context_applied_twice_changes_nothing():
    frame = make_logs(500, span_s=2_000)
    once = list(with_context(in_chunks(frame, 90), WINDOW))
    twice = list(with_context(once, WINDOW))
    assert [chunk.filter("claimed")["log_id"].to_list() for chunk in twice] == [
        chunk.filter("claimed")["log_id"].to_list() for chunk in once
    ]
    assert np.concatenate([all_windows(chunk) for chunk in twice]).tobytes() == all_windows(frame).tobytes()


def test_context_passes_over_gaps_and_empty_chunks():
    early, late = make_logs(10), make_logs(10, log_id=np.arange(11, 21))
    late = late.with_columns(ts=pl.col("ts") + timedelta(days=1))
    chunks = list(with_context([early, empty_logs(), late], WINDOW))
    assert [chunk.height for chunk in chunks] == [10, 0, 10]


def test_rows_out_of_order_are_refused():
    frame = make_logs(20)
    with pytest.raises(BadInput, match="in the order of ts, log_id"):
        list(with_context([frame.tail(10), frame.head(10)], WINDOW))


def test_many_services_and_one_instant():
    draw = random.Random(3)
    rows = [(0, draw.choice("ab"), "INFO", draw.random() * 100, 200, True) for _ in range(50)]
    frame = frame_of(rows).with_columns(service=pl.format("{}{}", "service", pl.col("log_id") % 20))
    np.testing.assert_allclose(all_windows(frame), naive(frame), rtol=1e-12)
