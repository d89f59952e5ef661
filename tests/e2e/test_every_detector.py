"""The two DAGs of every detector beside the main one: each has its own champion, ledger and predictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mllib.demo.files import generate_others
from mllib.detectors import names
from tests.e2e.conftest import DETECTOR, Run, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OTHERS = [name for name in names() if name != DETECTOR]


def run_all(local: Stack, kind: str) -> dict[str, Run]:
    """Runs of all these DAGs at once, by detector."""
    started = {name: local.api.trigger(f"{kind}_{name}") for name in OTHERS}
    for name in OTHERS:
        local.api.pause(f"{kind}_{name}", paused=False)
    return {name: local.finished(f"{kind}_{name}", run_id) for name, run_id in started.items()}


@pytest.fixture(scope="module")
def before(local: Stack) -> dict[str, Run]:
    """Scoring before there is a model; then there are rows of every source."""
    runs = run_all(local, "score")
    assert local.run("ingest").state == "success"
    for sample in generate_others(local.home / "demo"):
        name = Path(shutil.move(sample.path, local.home / "landing" / sample.path.name)).name
        start = {} if sample.start is None else {"start": sample.start.isoformat()}
        assert local.run("ingest", {"files": name, **start}).state == "success"
    return runs


@pytest.fixture(scope="module")
def trained(local: Stack, before: dict[str, Run]) -> dict[str, Run]:
    return run_all(local, "retrain")


@pytest.fixture(scope="module")
def scored(local: Stack, trained: dict[str, Run]) -> dict[str, Run]:
    return run_all(local, "score")


@pytest.fixture(params=OTHERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_without_a_champion_of_its_own_it_scores_nothing(before: dict[str, Run], name: str) -> None:
    run = before[name]
    assert run.state == "success"
    assert set(run.tasks().values()) == {"skipped"}
    assert f"millrace train {name}" in run.log("claim_rows")


def test_its_first_model_is_trained_and_judged(local: Stack, trained: dict[str, Run], name: str) -> None:
    run = trained[name]
    assert run.state == "success"
    assert run.tasks()["promoted"] == "success"
    [(status, trained_by)] = local.rows(
        "select status, trained_by from analytics.model_history where detector = :detector", detector=name
    )
    assert status == "champion"
    assert trained_by.startswith(run.run_id)


def test_it_scores_every_row_and_explains_its_anomalies(local: Stack, scored: dict[str, Run], name: str) -> None:
    run = scored[name]
    assert run.state == "success"
    rows = local.rows("select rows_waiting from analytics.freshness where detector = :detector", detector=name)
    assert rows == [(0,)]
    [(current, anomalies, explained)] = local.rows(
        "select count(*), count(*) filter (where is_anomaly), count(explanation -> 'look_at')"
        " from millrace.predictions join millrace.detectors using (detector_id) where name = :detector",
        detector=name,
    )
    assert run.returned("publish")["rows"] == current > 0
    assert 0 < anomalies == explained


def test_no_detector_touches_the_predictions_of_another(local: Stack, scored: dict[str, Run]) -> None:
    replaced = local.rows(
        "select distinct name from millrace.predictions_history join millrace.detectors using (detector_id)"
    )
    assert set(replaced) <= {(DETECTOR,)}


@pytest.mark.usefixtures("before")
def test_the_sessions_of_a_day_are_scored_by_the_day_before(local: Stack) -> None:
    run = local.run("score_sessions")
    assert run.tasks() == {"score_sessions": "success"}
    counts = run.returned("score_sessions")
    [stored] = local.rows("select count(*), count(*) filter (where is_anomaly) from analytics.sessions")
    assert stored == (counts["sessions"], counts["anomalies"])
    assert stored[0] > 0
    long_ago = {"from": "1990-01-01T00:00:00Z", "to": "1990-01-02T00:00:00Z"}
    skipped = local.run("score_sessions", long_ago)
    assert skipped.tasks() == {"score_sessions": "skipped"}
