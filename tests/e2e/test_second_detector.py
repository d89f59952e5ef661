"""Another detector's two DAGs, beside those of the main one: each has its own champion, ledger and predictions."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import DETECTOR, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LIGHT = "log_light"


def test_without_a_champion_of_its_own_it_scores_nothing(local: Stack) -> None:
    run = local.run(f"score_{LIGHT}")
    assert run.state == "success"
    assert set(run.tasks().values()) == {"skipped"}
    assert f"millrace train {LIGHT}" in run.log("claim_rows")


def test_its_first_model_is_trained_and_judged(local: Stack) -> None:
    run = local.run(f"retrain_{LIGHT}")
    assert run.state == "success"
    assert run.tasks()["promoted"] == "success"
    [(status, trained_by)] = local.rows(
        "select status, trained_by from analytics.model_history where detector = :detector", detector=LIGHT
    )
    assert status == "champion"
    assert trained_by.startswith(run.run_id)


def test_it_scores_every_row_and_explains_its_anomalies(local: Stack) -> None:
    [(rows,)] = local.rows("select count(*) from millrace.logs")
    others = local.rows("select count(*), max(run_id) from millrace.predictions_history")
    run = local.run(f"score_{LIGHT}")
    assert run.state == "success"
    assert run.returned("publish")["rows"] == rows
    for detector in (DETECTOR, LIGHT):
        [(scored, anomalies, explained)] = local.rows(
            "select count(*), count(*) filter (where is_anomaly), count(explanation -> 'look_at')"
            " from analytics.predictions_current where detector = :detector",
            detector=detector,
        )
        assert scored == rows
        assert 0 < anomalies == explained
    assert local.rows("select count(*), max(run_id) from millrace.predictions_history") == others
