"""Which groups are under way at the start of a slice, which rows they tie, and which hours an incident connects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mllib.gate import borders
from mllib.types import Window
from tests.factories import LOG_SCHEMA, START, make_frame

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
SCHEMA = {"ts": LOG_SCHEMA["ts"], "service": pl.String}


def at(*minutes: float, service: str | None = "shop") -> pl.DataFrame:
    """Rows of a service, so many minutes after the border."""
    return pl.DataFrame({"ts": [START + m * MINUTE for m in minutes], "service": service}, schema=SCHEMA)


def under_way(*rows: pl.DataFrame, limit: timedelta = HOUR) -> dict[Any, float]:
    """Services whose group is under way at START, with its last minute; rows at most five minutes apart are a group."""
    found = borders.under_way(pl.concat(rows), START, by=("service",), gap=5 * MINUTE, limit=limit)
    return {service: (until - START) / MINUTE for service, until in found.select("service", "until").iter_rows()}


@pytest.mark.parametrize(
    ("minutes", "until"),
    [
        ((-1, 1, 4, 9, 15), 9),  # up to the first pause: from 9 to 15
        ((-4, 1), 1),  # a gap of exactly five minutes is none
        ((-4.1, 1, 2), None),  # paused over the border
        ((1, 2, 3), None),  # begun after it
        ((-3, -2, -1), None),  # ended before it
        ((-20, -1, 0), 0),  # a row at the border is after it
        ((-1,), None),
    ],
)
def test_a_group_is_under_way_when_it_does_not_pause_over_the_border(
    minutes: tuple[float, ...], until: float | None
) -> None:
    assert under_way(at(*minutes)) == ({} if until is None else {"shop": until})


def test_rows_of_other_groups_neither_continue_nor_pause_a_group() -> None:
    assert under_way(at(-1, 4, 20), at(-3, 9, service="other"), at(-2, 2, 3, service=None)) == {"shop": 4, None: 3}


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = pl.concat([at(-1, 4, 8, 14, 15), at(-4, 1, 6, 12, service="other")])
    for seed in range(5):
        assert under_way(rows.sample(fraction=1, shuffle=True, seed=seed)) == {"shop": 8, "other": 6}


def test_what_does_not_pause_within_the_limit_is_no_group() -> None:
    steady = np.arange(-3, 100, 2).tolist()
    assert under_way(at(*steady), limit=30 * MINUTE) == {}
    assert under_way(at(*[minute for minute in steady if minute <= 30]), limit=30 * MINUTE) == {"shop": 29}
    assert under_way(at(-1, 3, 8), limit=8 * MINUTE) == {"shop": 8}
    assert under_way(at(-1, 3, 8), limit=8 * MINUTE - TICK) == {}


def test_all_rows_of_the_group_are_tied_up_to_its_last_one() -> None:
    groups = borders.under_way(
        pl.concat([at(-1, 4), at(-1, 2, service=None)]), START, by=("service",), gap=HOUR, limit=HOUR
    )
    rows = pl.concat([at(0, 3, 4, 5), at(1, 3, service=None), at(1, service="other")])
    assert borders.tied(rows, groups).tolist() == [True, True, True, False, True, False, False]
    assert borders.tied(rows.clear(), groups).shape == (0,)
    assert not borders.tied(rows, groups.clear()).any()


def test_no_group_takes_more_than_a_twentieth_of_a_slice() -> None:
    week, morning = Window(START, START + timedelta(days=7)), Window(START, START + 2 * HOUR)
    assert borders.burst_limit(week) == HOUR
    assert borders.incident_limit(week) == timedelta(days=7) / 20
    assert borders.burst_limit(morning) == borders.incident_limit(morning) == 6 * MINUTE


@pytest.mark.parametrize("slice_hours", [0.1, 2, 168])
def test_the_edge_reaches_far_enough_to_tell_a_burst_from_a_heartbeat(slice_hours: float) -> None:
    window = Window(START, START + slice_hours * HOUR)
    edge = borders.edge(window)
    limit = borders.burst_limit(window)
    last = START + limit
    lines = pl.DataFrame({"ts": [START - TICK, *(START + n * limit / 60 for n in range(61)), last + borders.BURST_GAP]})
    lines = lines.cast({"ts": LOG_SCHEMA["ts"]}).with_columns(service=pl.lit("shop"))
    seen = lines.filter(pl.col("ts").is_between(edge.start, edge.end, closed="left"))
    how: dict[str, Any] = {"by": ("service",), "gap": borders.BURST_GAP, "limit": limit}
    assert borders.under_way(seen, START, **how).is_empty()
    assert borders.under_way(seen.filter(pl.col("ts") <= last), START, **how).height == 1
    assert edge.start <= START - borders.INCIDENT_GAP


def test_lines_of_one_template_are_equal_wherever_they_are_cut() -> None:
    lines = make_frame(
        log_id=range(4), ts=START, service="shop", message=["retry 1 of job 77", "retry 2 of job 8", "", "stopped"]
    )
    whole = borders.templates(lines)
    assert whole["template"][0] == whole["template"][1]
    assert whole["template"].n_unique() == 3
    assert pl.concat([borders.templates(lines[row]) for row in range(4)]).equals(whole)


def clusters(*rows: tuple[float, int, bool], limit: timedelta = 3 * HOUR) -> list[int]:
    """Clusters of (minute, service, anomaly), where START is a full hour."""
    minutes, services, positive = (np.array(column) for column in zip(*rows, strict=True))
    ts_us = (int(START.timestamp() * 1e6) + minutes * 60e6).astype(np.int64)
    return borders.clusters(ts_us, services.astype(np.int64), positive.astype(np.bool_), limit).tolist()


def test_hours_of_a_service_are_clusters_and_an_incident_connects_them() -> None:
    normal = [(10, 0, False), (70, 0, False), (10, -1, False), (70, 1, False), (75, 1, False)]
    assert clusters(*normal) == [1, 2, 0, 3, 3]
    assert clusters(*normal, (58, 0, True), (61, 0, True)) == [1, 1, 0, 2, 2, 1, 1]
    assert clusters(*normal, (58, 0, True), (63.1, 0, True)) == [1, 2, 0, 3, 3, 1, 2]  # a pause
    assert clusters(*normal, (58, 0, True), (61, 1, True)) == [1, 2, 0, 3, 3, 1, 3]  # two services
    assert clusters(*normal, (58, 0, False), (61, 0, True)) == [1, 2, 0, 3, 3, 1, 2]  # one anomaly


def test_an_incident_connects_as_many_hours_as_it_lasts_up_to_the_limit() -> None:
    rows = [(float(minute), 0, True) for minute in range(57, 184, 3)]
    assert set(clusters(*rows, (5, 0, False), (250, 0, False), limit=3 * HOUR)) == {0, 1}
    steady = clusters(*rows, (5, 0, False), (250, 0, False), limit=2 * HOUR)
    assert set(steady) == {0, 1, 2, 3, 4}


def test_clusters_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    ts_us = rng.integers(0, 5 * 86_400, 4_000) * 1_000_000
    services, positive = rng.integers(-1, 4, 4_000), rng.random(4_000) < 0.1
    whole = borders.clusters(ts_us, services, positive, 6 * HOUR)
    order = rng.permutation(4_000)
    assert np.array_equal(borders.clusters(ts_us[order], services[order], positive[order], 6 * HOUR), whole[order])
    hours = np.unique(services * 1_000 + ts_us // 3_600_000_000).size
    assert 5 < np.unique(whole).size < hours


def test_without_rows_there_is_no_cluster() -> None:
    none = np.empty(0, dtype=np.int64)
    assert borders.clusters(none, none, none.astype(np.bool_), HOUR).shape == (0,)
