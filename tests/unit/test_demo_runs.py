"""The synthetic demo runs: repeatable, readable, with outcomes and planted changes that the logs show."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mllib.demo.runs import PLANTED, REPOSITORIES, generate_runs
from mllib.errors import BadInput
from mllib.ingest import detect
from mllib.ingest.base import RunRecord
from mllib.ingest.reader import read

NOW = datetime(2026, 3, 14, 10, 37, 12, tzinfo=UTC)
RUNS = 400


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_runs(tmp_path_factory.mktemp("runs") / "runs.jsonl.gz", now=NOW, runs=RUNS)


@pytest.fixture(scope="module")
def records(path: Path) -> list[RunRecord]:
    (batch,) = read(path, detect(path))
    assert not batch.rejects
    return [record for _, record in batch.records if isinstance(record, RunRecord)]


def test_they_are_read_as_runs_in_the_order_of_their_time(path: Path, records: list[RunRecord]) -> None:
    assert detect(path).name == "pipeline_jsonl"
    assert len(records) == RUNS
    stamps = [record.ts for record in records]
    assert stamps == sorted(stamps)
    end = NOW.replace(minute=0, second=0)
    assert end - timedelta(days=28) <= stamps[0] <= stamps[-1] < end
    assert {record.repository for record in records} == {repository.name for repository in REPOSITORIES}
    assert {record.provider for record in records} == {"travis", "github_actions"}
    assert all(None not in record.features.numbers() for record in records)


def test_failures_come_in_rows_and_show_in_the_log(records: list[RunRecord]) -> None:
    failed = [record for record in records if record.label != "0"]
    assert 0.1 < len(failed) / RUNS < 0.3
    assert all(record.features.values["failed_step_count"] for record in failed)
    again = 0
    last: dict[str | None, bool] = {}
    for record in records:
        again += record.label != "0" and last.get(record.repository, False)
        last[record.repository] = record.label != "0"
    assert again > len(failed) / 3


TOLD_BY = ("remote_script_executions", "distinct_network_hosts", "secret_like_tokens", "privilege_changes")


@pytest.mark.parametrize(("kind", "feature"), list(zip(PLANTED, TOLD_BY, strict=True)))
def test_planted_changes_are_named_rare_and_in_the_log(tmp_path: Path, kind: str, feature: str) -> None:
    found = generate_runs(tmp_path / "more.jsonl.gz", now=NOW, runs=900, seed=5)
    lines = gzip.decompress(found.read_bytes()).decode().splitlines()
    planted = Counter(json.loads(line)["planted"] for line in lines)
    assert 0.01 < 1 - planted[None] / 900 < 0.06
    of_kind = tmp_path / "one.jsonl"
    of_kind.write_text("\n".join(line for line in lines if f'"planted": "{kind}"' in line) + "\n")
    (batch,) = read(of_kind, detect(found))
    usual = {"distinct_network_hosts": 2}.get(feature, 0)
    values = [record.features.values[feature] for _, record in batch.records if isinstance(record, RunRecord)]
    assert len(values) == planted[kind] > 0
    assert all(value is not None and value > usual for value in values)


def test_the_same_arguments_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = generate_runs(tmp_path / "again.jsonl.gz", now=NOW, runs=RUNS)
    other = generate_runs(tmp_path / "other.jsonl.gz", now=NOW, runs=RUNS, seed=1)
    assert again.read_bytes() == path.read_bytes() != other.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.jsonl.gz", "other.jsonl.gz"]


@pytest.mark.parametrize(("runs", "days"), [(99, 28), (400, 0)])
def test_too_little_is_refused(tmp_path: Path, runs: int, days: int) -> None:
    with pytest.raises(BadInput, match="at least 100 runs"):
        generate_runs(tmp_path / "runs.jsonl.gz", now=NOW, runs=runs, days=days)
