"""The synthetic demo flows: as CICFlowMeter writes them, repeatable, with attacks in every part of the time."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mllib.demo.flows import ATTACKS, BURSTS_PER_KIND, generate_flows
from mllib.errors import BadInput
from mllib.ingest import detect
from mllib.sources import CICFLOWMETER_FEATURES

NOW = datetime(2031, 5, 14, 10, 37, 12, tzinfo=UTC)
END = NOW.replace(minute=0, second=0)


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def moment(row: dict[str, str]) -> datetime:
    return datetime.fromisoformat(row["Timestamp"]).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_flows(tmp_path_factory.mktemp("demo") / "flows.csv.gz", now=NOW)


@pytest.fixture(scope="module")
def rows(path: Path) -> list[dict[str, str]]:
    return read(path)


def test_flows_are_complete_in_order_and_of_the_format(path: Path, rows: list[dict[str, str]]) -> None:
    assert detect(path).name == "cicflowmeter"
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert len(rows) == 9_000
    times = [moment(row) for row in rows]
    assert times == sorted(times)
    assert END - timedelta(days=14) <= times[0]
    assert END - timedelta(hours=12) < times[-1] <= END
    assert all(set(row) == set(rows[0]) >= set(CICFLOWMETER_FEATURES) for row in rows)


def test_figures_of_a_flow_fit_together(rows: list[dict[str, str]]) -> None:
    for row in rows:
        duration, packets = (
            float(row["Flow Duration"]),
            float(row["Total Fwd Packet"]) + float(row["Total Bwd packets"]),
        )
        assert float(row["Flow IAT Min"]) <= float(row["Flow IAT Mean"]) <= float(row["Flow IAT Max"]) <= duration
        if duration:
            assert float(row["Flow Packets/s"]) == pytest.approx(packets * 1e6 / duration, rel=1e-6)
        else:
            assert row["Flow Packets/s"] == "Infinity"
            assert row["Flow Bytes/s"] in ("Infinity", "NaN")
    assert any(row["Flow Bytes/s"] == "NaN" for row in rows)


def test_every_part_of_the_time_has_each_attack_in_bursts(rows: list[dict[str, str]]) -> None:
    counts = Counter(row["Label"] for row in rows)
    assert counts.keys() == {"BENIGN", *ATTACKS}
    assert 0.7 < counts["BENIGN"] / len(rows) < 0.8
    for name in ATTACKS:
        times = [moment(row) for row in rows if row["Label"] == name]
        days = Counter((time - (END - timedelta(days=14))) // timedelta(days=2) for time in times)
        assert set(range(7)) <= days.keys()
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert sum(gap > timedelta(hours=1) for gap in gaps) <= BURSTS_PER_KIND


def test_no_single_figure_gives_the_attacks_away(rows: list[dict[str, str]]) -> None:
    attack = [row["Label"] != "BENIGN" for row in rows]
    for name in ("Flow Duration", "Total Fwd Packet", "RST Flag Count", "Flow Packets/s", "FWD Init Win Bytes"):
        values = [float(row[name]) for row in rows]
        best = 0.0
        for border in sorted(set(values))[:: max(len(set(values)) // 50, 1)]:
            for flags in ([v >= border for v in values], [v <= border for v in values]):
                hits = sum(a and f for a, f in zip(attack, flags, strict=True))
                best = max(best, 2 * hits / (sum(flags) + sum(attack)))
        assert best < 0.8


def test_the_same_now_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    elsewhere = NOW.replace(minute=1).astimezone(timezone(timedelta(hours=-7)))
    first = generate_flows(tmp_path / "a", now=NOW, days=3, rows=2_000)
    again = generate_flows(tmp_path / "b", now=elsewhere, days=3, rows=2_000)
    other = generate_flows(tmp_path / "c", now=NOW, days=3, rows=2_000, seed=8)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_impossible_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 1 day and 2,000 rows, got 0 and 2000"):
        generate_flows(tmp_path / "a", days=0, rows=2_000)
    with pytest.raises(BadInput, match="got 14 and 1999"):
        generate_flows(tmp_path / "a", rows=1_999)
    with pytest.raises(BadInput, match="needs a time zone"):
        generate_flows(tmp_path / "a", now=NOW.replace(tzinfo=None))
    assert not list(tmp_path.iterdir())
