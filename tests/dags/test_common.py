"""What a run is for, and how the project's errors become task states."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mllib.errors import BadInput, DatabaseUnavailable, NoChampion, NothingToScore, NothingToTrainOn
from mllib.types import Window

KEY = "2026-03-01T05:00:00"
HOUR = Window(datetime(2026, 3, 1, 5, tzinfo=UTC), datetime(2026, 3, 1, 6, tzinfo=UTC))
FROM_TO = {"from": "2026-03-01T05:00:00+00:00", "to": "2026-03-01T07:30:00+01:00"}


@pytest.fixture(scope="module")
def common(dag_bag: Any) -> Any:
    from dags import common

    return common


@pytest.mark.parametrize(
    ("run_type", "partition_key", "params", "expected"),
    [
        # A scheduled run takes what is new: after a downtime hours are left out, and their rows must not be.
        ("scheduled", KEY, {}, None),
        ("asset_triggered", None, {}, None),
        ("backfill", KEY, {}, HOUR),
        ("backfill", KEY, FROM_TO, HOUR),
        ("manual", None, {}, None),
        ("manual", None, {"from": None, "to": None}, None),
        ("manual", None, {"from": "", "to": ""}, None),
        ("manual", KEY, {}, HOUR),
        ("manual", None, FROM_TO, Window(HOUR.start, datetime(2026, 3, 1, 6, 30, tzinfo=UTC))),
        ("manual", None, {"from": "2026-03-01T05:00", "to": "2026-03-01T06:00"}, HOUR),
    ],
)
def test_which_rows_a_run_is_for(common: Any, run_type: str, partition_key: Any, params: Any, expected: Any) -> None:
    assert common.scoring_window(run_type, partition_key, params) == expected


@pytest.mark.parametrize(
    ("run_type", "partition_key", "params", "message"),
    [
        ("backfill", None, {}, "no partition key"),
        ("backfill", "2026-03-01T05:30:00", {}, "no hour"),
        ("backfill", "yesterday", {}, "no time"),
        ("manual", "eu-west", {}, "no time"),
        ("manual", KEY, FROM_TO, "not both"),
        ("manual", None, {"from": FROM_TO["from"]}, "both ends"),
        ("manual", None, {"to": FROM_TO["to"]}, "both ends"),
        ("manual", None, {"from": FROM_TO["to"], "to": FROM_TO["from"]}, None),
        ("manual", None, {"from": FROM_TO["from"], "to": FROM_TO["from"]}, "empty"),
    ],
)
def test_what_contradicts_itself_is_refused(
    common: Any, run_type: str, partition_key: Any, params: Any, message: str | None
) -> None:
    with pytest.raises(BadInput, match=message):
        common.scoring_window(run_type, partition_key, params)


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        # Berlin puts its clocks back at 03:00: the hour from 02:00 comes twice, and a day has 25.
        ("2025-10-26T02:00:00+02:00", "2025-10-26T02:00:00+01:00", 1),
        ("2025-10-26T02:30:00+02:00", "2025-10-26T02:30:00+01:00", 1),
        ("2025-10-26T00:00:00+02:00", "2025-10-27T00:00:00+01:00", 25),
        # In spring the hour from 02:00 is left out, and a day has 23.
        ("2026-03-29T01:59:00+01:00", "2026-03-29T03:59:00+02:00", 1),
        ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", 23),
        # Without an offset it is UTC, which knows no such days.
        ("2025-10-26T00:00:00", "2025-10-27T00:00:00", 24),
        ("2026-03-29T02:30:00", "2026-03-29T03:30:00", 1),
    ],
)
def test_the_clock_change_of_a_place_changes_no_window(common: Any, start: str, end: str, hours: int) -> None:
    window = common.scoring_window("manual", None, {"from": start, "to": end})
    assert window.length == timedelta(hours=hours)
    assert window == common.window_param({"from": start, "to": end})
    # By the place's own clock, as a program would give it.
    berlin = [datetime.fromisoformat(text).astimezone(ZoneInfo("Europe/Berlin")) for text in (start, end)]
    if all("+" in text for text in (start, end)):
        assert Window(*berlin) == window


def test_each_of_the_two_hours_is_a_partition_of_its_own(common: Any) -> None:
    first, second = (
        common.scoring_window("backfill", f"2025-10-26T02:00:00{offset}", {}) for offset in ("+02:00", "+01:00")
    )
    assert first.end == second.start
    assert first.length == second.length == timedelta(hours=1)


def test_rescoring_needs_a_window(common: Any) -> None:
    with pytest.raises(BadInput, match="number of a `plan`"):
        common.window_param({"from": None, "to": None})


@pytest.mark.parametrize("due", ["2026-03-29T01:15:00+01:00", "2026-03-29T00:00:00+00:00", "2026-03-29T23:59:59+00:00"])
def test_the_day_before_is_a_whole_one_in_utc(common: Any, due: str) -> None:
    run = SimpleNamespace(data_interval_end=None, run_after=datetime.fromisoformat(due))
    expected = Window(datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 29, tzinfo=UTC))
    assert common.day_before({"dag_run": run}) == expected
    run.data_interval_end, run.run_after = run.run_after, datetime(2026, 4, 1, tzinfo=UTC)
    assert common.day_before({"dag_run": run}) == expected


def test_as_of_is_the_parameter_then_the_interval_then_when_it_was_due(common: Any) -> None:
    run = SimpleNamespace(
        data_interval_end=datetime(2026, 3, 1, 2, tzinfo=UTC), run_after=datetime(2026, 3, 1, 3, tzinfo=UTC)
    )
    given = {"dag_run": run, "params": {"as_of": "2026-02-01T00:00:00+00:00"}}
    assert common.as_of(given) == datetime(2026, 2, 1, tzinfo=UTC)
    assert common.as_of({"dag_run": run, "params": {"as_of": None}}) == run.data_interval_end
    run.data_interval_end = None
    assert common.as_of({"dag_run": run, "params": {}}) == run.run_after


@pytest.mark.parametrize(
    ("raised", "state"),
    [
        (NoChampion("log_anomaly"), "AirflowSkipException"),
        (NothingToTrainOn("no rows"), "AirflowSkipException"),
        (NothingToScore("no sessions"), "AirflowSkipException"),
        (BadInput("wrong"), "AirflowFailException"),
        (DatabaseUnavailable("down"), "DatabaseUnavailable"),
        (ZeroDivisionError("unforeseen"), "ZeroDivisionError"),
    ],
)
def test_errors_become_states(common: Any, raised: Exception, state: str) -> None:
    with pytest.raises(Exception, match=re.escape(str(raised))) as caught, common.final_states():
        raise raised
    assert type(caught.value).__name__ == state
