"""The synthetic demo logs: complete, repeatable, and with anomalies that no single rule finds."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mllib.demo import generate
from mllib.demo.drift import Drift
from mllib.errors import BadInput

NOW = datetime(2031, 5, 14, 10, 37, 12, tzinfo=UTC)
KEYS = {
    *("ts", "id", "service", "host", "level", "message"),
    *("response_time_ms", "status_code", "trace_id", "label"),
}


def read(paths: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in gzip.open(path, "rt", encoding="utf-8")]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate(tmp_path_factory.mktemp("demo"), now=NOW, rows=40_000)


@pytest.fixture(scope="module")
def rows(paths: list[Path]) -> list[dict[str, Any]]:
    return read(paths)


def test_one_file_a_week_whose_name_says_synthetic(paths: list[Path]) -> None:
    assert [path.name for path in paths] == [f"demo-synthetic-week{n}.jsonl.gz" for n in (1, 2, 3, 4)]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [path.name for path in paths]


def test_rows_are_complete_and_in_order(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 40_000
    assert all(row.keys() == KEYS for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    stamps = [datetime.fromisoformat(row["ts"]) for row in rows]
    assert stamps == sorted(stamps)
    end = NOW.replace(minute=0, second=0)
    assert end - timedelta(days=28) <= stamps[0]
    assert end - timedelta(hours=1) < stamps[-1] < end
    assert not [row for row in rows if "{" in row["message"] or "%" in row["message"]]


def test_the_shop_is_varied(rows: list[dict[str, Any]]) -> None:
    assert len({row["service"] for row in rows}) == 8
    assert {row["level"] for row in rows} == {"DEBUG", "INFO", "WARN", "ERROR", "FATAL"}
    assert {200, 201, 401, 402, 404, 502, 503} <= {row["status_code"] for row in rows}
    traces = Counter(row["trace_id"] for row in rows if row["trace_id"])
    assert max(traces.values()) >= 5


def test_each_week_has_anomalies_in_bursts(paths: list[Path], rows: list[dict[str, Any]]) -> None:
    assert 0.01 < sum(row["label"] for row in rows) / len(rows) < 0.03
    for path in paths:
        assert sum(row["label"] for row in read([path])) >= 60
    stamps = [datetime.fromisoformat(row["ts"]) for row in rows if row["label"]]
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    assert sum(gap < timedelta(minutes=5) for gap in gaps) > 0.8 * len(gaps)


def test_neither_level_status_nor_slowness_gives_the_anomalies_away(rows: list[dict[str, Any]]) -> None:
    anomalies = sum(row["label"] for row in rows)

    def f1(flags: list[bool]) -> float:
        hits = sum(row["label"] for row, flag in zip(rows, flags, strict=True) if flag)
        return 2 * hits / (sum(flags) + anomalies)

    assert f1([row["level"] in ("ERROR", "FATAL") for row in rows]) < 0.75
    assert f1([(row["status_code"] or 0) >= 500 for row in rows]) < 0.75
    assert f1([(row["response_time_ms"] or 0) > 1000 for row in rows]) < 0.75


def test_nights_are_quieter_and_response_times_creep_up(rows: list[dict[str, Any]]) -> None:
    hours = Counter(datetime.fromisoformat(row["ts"]).hour for row in rows if not row["label"])
    assert hours[20] > 2 * hours[3]
    home = [row["response_time_ms"] for row in rows if row["message"].startswith("GET / ")]
    quarter = len(home) // 4
    assert sum(home[-quarter:]) > 1.05 * sum(home[:quarter])


def test_a_deploy_changes_the_wording_for_good(rows: list[dict[str, Any]]) -> None:
    lines = [row["message"] for row in rows if row["service"] == "search" and row["level"] == "INFO"]
    assert any(message.startswith("version 2.") for message in lines)
    old = [index for index, message in enumerate(lines) if message.startswith("query ")]
    new = [index for index, message in enumerate(lines) if " for " in message]
    assert old
    assert new
    assert max(old) < min(new)


def test_the_same_now_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    elsewhere = NOW.replace(minute=1).astimezone(timezone(timedelta(hours=-7)))
    first = generate(tmp_path / "a", now=NOW, days=8, rows=3000)
    again = generate(tmp_path / "b", now=elsewhere, days=8, rows=3000)
    other = generate(tmp_path / "c", now=NOW, days=8, rows=3000, seed=8)
    assert len(first) == 2
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert [path.read_bytes() for path in first] != [path.read_bytes() for path in other]


def test_drift_changes_the_shop_at_its_weeks_and_nothing_before(tmp_path: Path) -> None:
    drift = Drift(release=2, slowdown=3, mislabelled=())
    how: dict[str, Any] = {"now": NOW, "days": 28, "rows": 20_000}
    steady = [read([path]) for path in generate(tmp_path / "steady", **how)]
    paths = generate(tmp_path / "drifting", **how, drift=drift)
    drifting = [read([path]) for path in paths]
    assert [len(week) for week in drifting] == [len(week) for week in steady]
    assert {row["service"] for row in drifting[0]} == {row["service"] for row in steady[0]}
    for week in drifting[1:]:
        services = {row["service"] for row in week}
        assert ("recommender" in services, "personaliser" in services) == (False, True)
        deferred = [row for row in week if "ledger sync" in row["message"]]
        assert len(deferred) > 0.01 * len(week)
        assert {(row["level"], row["label"]) for row in deferred} == {("WARN", 0)}
    assert not [row for row in drifting[0] if "ledger sync" in row["message"]]

    def home(week: list[dict[str, Any]]) -> float:
        times = [row["response_time_ms"] for row in week if row["message"].startswith("GET / ")]
        return sum(times) / len(times)

    assert home(drifting[1]) == pytest.approx(home(steady[1]), rel=0.1)
    assert home(drifting[2]) == pytest.approx(2 * home(steady[2]), rel=0.1)
    words = [" ".join(row["message"] for row in week if row["label"]) for week in drifting]
    assert "no space left on device" in words[0] + words[1]
    assert "no space left on device" not in words[2] + words[3]
    assert "volume is at quota" in words[2] + words[3]


def test_wrong_labels_lie_in_their_weeks_and_the_truth_beside_them(tmp_path: Path) -> None:
    how: dict[str, Any] = {"now": NOW, "days": 21, "rows": 9_000}
    right = read(generate(tmp_path / "right", **how, drift=Drift(mislabelled=())))
    paths = generate(tmp_path / "wrong", **how, drift=Drift(mislabelled=(2,), flipped=0.3))
    weeks = [read([path]) for path in paths]
    given = [row for week in weeks for row in week]
    wrong = {
        row["id"]: truth["label"] for row, truth in zip(given, right, strict=True) if row["label"] != truth["label"]
    }
    assert 0.25 * len(weeks[1]) < len(wrong) < 0.35 * len(weeks[1])
    assert set(wrong) <= {row["id"] for row in weeks[1]}
    with (tmp_path / "wrong" / "corrections.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert {row["id"]: int(row["label"]) for row in told} == wrong
    assert {row["source"] for row in told} == {"demo-synthetic-week2"}


def test_a_single_day_of_few_rows_has_all_there_is(tmp_path: Path) -> None:
    rows = read(generate(tmp_path, now=NOW, days=1, rows=1000))
    assert len(rows) == 1000
    assert {0, 1} == {row["label"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"days": 0}, "at least 1 day"),
        ({"rows": 999}, "1,000 rows"),
        ({"now": NOW.replace(tzinfo=None)}, "needs a time zone"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        generate(tmp_path, **arguments)
