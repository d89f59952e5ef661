"""Windows at their edges: in the future, before the first log, overlapping, over a clock change, left by a backfill."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput
from mllib.jobs import scoring
from mllib.store.backlog import hours_without_run
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import DETECTOR, check_accounts, insert_logs, promote_model, rows, scalar
from tests.factories import START

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def uncovered(engine: Engine, window: Window, **options: datetime) -> list[tuple[int, int, bool]]:
    """Hours without a run as (hour since START, rows, open)."""
    with transaction(engine) as conn:
        found = hours_without_run(conn, DETECTOR, window, **options)
    return [((hour.window.start - START) // HOUR, hour.rows, hour.open) for hour in found]


@pytest.mark.parametrize("ahead", [timedelta(seconds=30), 400 * 24 * HOUR], ids=["half over", "not begun"])
def test_a_window_that_is_not_over_is_refused_and_claims_nothing(
    engine: Engine, champion: int, ahead: timedelta
) -> None:
    insert_logs(engine, 10)
    end = datetime.now(UTC) + ahead
    with pytest.raises(BadInput, match=r"ends after now .* End it at or before now"):
        scoring.score(engine, DETECTOR, window=Window(end - HOUR, end))
    assert scalar(engine, "select count(*) from millrace.scoring_runs") == 0
    assert scoring.score(engine, DETECTOR).scored == 10


@pytest.mark.parametrize(
    ("hours", "said"), [(-3, "the first one is of 2026-03-02 08:00:00 UTC"), (5, "There is no log line in")]
)
def test_hours_without_a_log_line_are_done_and_say_so(
    engine: Engine, champion: int, caplog: pytest.LogCaptureFixture, hours: int, said: str
) -> None:
    insert_logs(engine, 10)
    caplog.set_level(logging.INFO, "mllib")
    window = Window(START + hours * HOUR, START + (hours + 1) * HOUR)
    assert scoring.score(engine, DETECTOR, window=window).claimed == 0
    assert said in caplog.text
    assert rows(engine, "select state, claimed from millrace.scoring_runs") == [("done", 0)]


def test_before_any_log_line(engine: Engine, champion: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mllib")
    scoring.score(engine, DETECTOR, window=Window(START, START + HOUR))
    assert "none at all" in caplog.text


def test_two_overlapping_backfills_at_once(engine: Engine, champion: int) -> None:
    """Each hour of each is a run; they wait for one another, and the last one's word counts."""
    insert_logs(engine, 4_000, step=timedelta(seconds=3))
    newer = promote_model(engine, threshold=0.56)
    runs = [
        (f"{version} {hour}", version, Window(START + hour * HOUR, START + (hour + 1) * HOUR))
        for hours, version in ((range(3), champion), (range(1, 4), newer))
        for hour in hours
    ]
    with ThreadPoolExecutor(4) as pool:
        reports = list(
            pool.map(lambda run: scoring.score(engine, DETECTOR, run_key=run[0], version=run[1], window=run[2]), runs)
        )
    assert len({report.run_id for report in reports}) == 6
    assert rows(engine, "select distinct claimed = scored, state from millrace.scoring_runs") == [(True, "done")]
    assert scalar(engine, "select count(*) from analytics.predictions_current") == 4_000
    check_accounts(engine, ever=3_600 + 2_800)


def test_the_hour_that_comes_twice_is_two_hours(engine: Engine, champion: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2025, 10, 26, 2, tzinfo=berlin, fold=fold) for fold in (0, 1))
    with transaction(engine) as conn:
        conn.execute(
            text("insert into millrace.logs (ts, message) values (:ts, 'x')"),
            [{"ts": f"2025-10-26 02:{minute}:00{offset}"} for minute in (10, 50) for offset in ("+02:00", "+01:00")],
        )
    assert scoring.score(engine, DETECTOR, window=Window(first, second)).scored == 2
    assert scoring.score(engine, DETECTOR, window=Window(second, second.astimezone(UTC) + HOUR)).scored == 2
    assert rows(engine, "select hour, rows from analytics.scoring_hourly order by 1") == [
        (datetime(2025, 10, 26, hour, tzinfo=UTC), 2) for hour in (0, 1)
    ]
    day = Window(datetime(2025, 10, 26, tzinfo=berlin), datetime(2025, 10, 27, tzinfo=berlin))
    assert len(uncovered(engine, day)) == 25 - 2
    spring = Window(datetime(2026, 3, 29, tzinfo=berlin), datetime(2026, 3, 30, tzinfo=berlin))
    assert len(uncovered(engine, spring)) == 23
    check_accounts(engine)


def test_a_cancelled_backfill_leaves_hours_that_can_be_listed_and_finished(engine: Engine, champion: int) -> None:
    insert_logs(engine, 6 * 360, step=timedelta(seconds=10))
    scoring.score(engine, DETECTOR)  # by the hour as they came in: says nothing of the backfill
    day = Window(START, START + 6 * HOUR)
    assert uncovered(engine, day) == [(hour, 360, False) for hour in range(6)]
    for hour in (0, 3):
        scoring.score(engine, DETECTOR, window=Window(START + hour * HOUR, START + (hour + 1) * HOUR))
    claimed, _ = scoring.claim(engine, DETECTOR, "stuck", window=Window(START + 4 * HOUR, START + 5 * HOUR))
    assert uncovered(engine, day) == [(1, 360, False), (2, 360, False), (4, 360, True), (5, 360, False)]
    scoring.finish(engine, claimed.run.run_id)
    scoring.score(engine, DETECTOR, window=Window(START + HOUR, START + 2.5 * HOUR))
    # Half of an hour is not that hour; a run over both halves is.
    assert uncovered(engine, day) == [(2, 360, False), (5, 360, False)]
    scoring.score(engine, DETECTOR, window=Window(START + 2.5 * HOUR, START + 9 * HOUR))
    assert uncovered(engine, day) == []
    assert uncovered(engine, Window(START - 30 * MINUTE, START + 30 * MINUTE)) == [(-1, 0, False)]
    # For a second backfill over the same hours, only what it has claimed itself counts.
    since = scalar(engine, "select clock_timestamp()")
    scoring.score(engine, DETECTOR, window=Window(START, START + 5 * HOUR))
    assert uncovered(engine, day, since=since) == [(5, 360, False)]
    check_accounts(engine, ever=scalar(engine, "select sum(scored)::bigint from millrace.scoring_runs"))
