"""Training on generated, labelled logs: what is kept of a version, and nothing that was not known at the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from mllib.detectors import detector
from mllib.errors import NothingToTrainOn
from mllib.jobs.judging import judge_candidate
from mllib.jobs.training import TrainingOptions, fit_candidate
from mllib.types import Verdict
from tests.db.scoring_factories import DETECTOR, insert_logs, rows, scalar
from tests.db.training_factories import END, change, decisions, run, stored_model, version_row


def test_what_the_registry_keeps_of_a_version(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="somebody", options=TrainingOptions(seed=7))
    row = version_row(shop, version)
    assert (row["status"], row["seed"], row["trained_by"]) == ("candidate", 7, "somebody")
    windows = [row[f"{name}_window"] for name in ("train", "validation", "holdout")]
    for window, name in zip(windows, ("train", "validation", "holdout"), strict=True):
        counted = rows(
            shop,
            "select count(*), count(l.label), count(*) filter (where l.label <> '0') from millrace.logs g left join"
            " millrace.labels_current l on l.ts = g.ts and l.row_id = g.log_id where g.ts >= :a and g.ts < :b",
            a=window.lower,
            b=window.upper,
        )[0]
        assert tuple(row["label_counts"][name][key] for key in ("rows", "labelled", "positives")) == counted
        assert counted[2] > 30
    context = detector(DETECTOR).context
    assert windows[1].lower - windows[0].upper >= context
    assert windows[2].lower - windows[1].upper >= context
    last = scalar(shop, "select max(ts) from millrace.labels")
    assert windows[2].upper == last + timedelta(microseconds=1)
    assert row["training_rows"] == row["label_counts"]["train"]["rows"]
    assert len(row["data_hash"]) == 64
    assert row["artifact_digest"] == scalar(shop, "select digest from millrace.model_artifacts")
    model = stored_model(shop, version)
    assert (tuple(row["feature_names"]), row["threshold"]) == (model.feature_names, model.threshold)
    assert len(row["feature_names"]) == 82
    assert row["parameters"]["n_estimators"] == 100
    assert row["parameters"]["training"]["min_positives"] == 30
    assert row["validation_metrics"]["positives"] == row["label_counts"]["validation"]["positives"]
    assert 0 < row["validation_metrics"]["f1"] <= 1
    assert {"python", "numpy", "polars", "scikit-learn"} <= row["library_versions"].keys()
    assert row["algorithm"] == "ensemble and companion"  # its training rows have labels
    assert row["as_of"] <= row["trained_at"] <= datetime.now(UTC)


def test_nothing_later_than_as_of_is_used(shop: Engine) -> None:
    as_of = END - timedelta(days=3, hours=5, minutes=7)
    early = fit_candidate(shop, DETECTOR, as_of=as_of, trained_by="test")
    seen = judge_candidate(shop, DETECTOR, early, decided_by="test", dry_run=True)
    insert_logs(shop, 3_000, start=as_of + timedelta(seconds=1), step=timedelta(seconds=40))
    change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, log_id, '1', 'import' from millrace.logs"
        " where ts > :as_of",
        as_of=as_of,
    )
    # What people say today of rows of then was not known then, and hides nothing that was.
    change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, row_id, case label when '0' then '1' else"
        " '0' end, 'analyst' from millrace.labels_current where ts <= :as_of and row_id % 2 = 0",
        as_of=as_of,
    )
    late = fit_candidate(shop, DETECTOR, as_of=as_of, trained_by="test")
    again = judge_candidate(shop, DETECTOR, late, decided_by="test", dry_run=True)
    changing = ("version", "trained_at", "snapshot")
    before, after = ({k: v for k, v in version_row(shop, v_).items() if k not in changing} for v_ in (early, late))
    assert before == after
    assert before["holdout_window"].upper <= as_of + timedelta(microseconds=1)
    assert (again.holdout_hash, again.candidate_f1) == (seen.holdout_hash, seen.candidate_f1)
    today = fit_candidate(shop, DETECTOR, trained_by="test")
    assert version_row(shop, today)["data_hash"] != before["data_hash"]


def test_labels_ripen_for_the_label_delay(shop: Engine) -> None:
    delay = timedelta(days=2)
    as_of = END - timedelta(hours=1)
    ripe = fit_candidate(shop, DETECTOR, as_of=as_of, trained_by="test", options=TrainingOptions(label_delay=delay))
    last = scalar(shop, "select max(ts) from millrace.labels where ts <= :t", t=as_of - delay)
    assert version_row(shop, ripe)["holdout_window"].upper == last + timedelta(microseconds=1)


def test_without_positives_in_validation_the_threshold_follows_the_alert_budget(shop: Engine) -> None:
    holdout = version_row(shop, fit_candidate(shop, DETECTOR, trained_by="test"))["holdout_window"]
    change(shop, "update millrace.labels set label = '0' where ts < :start", start=holdout.lower)
    options = TrainingOptions(alerts_per_day=20, min_positives=5)
    version = fit_candidate(shop, DETECTOR, trained_by="test", options=options)
    row = version_row(shop, version)
    assert row["label_counts"]["validation"]["positives"] == 0
    days = (row["train_window"].upper - row["train_window"].lower) / timedelta(days=1)
    model = stored_model(shop, version)
    assert model.threshold == model.expected_threshold(20 * days / row["training_rows"])
    report = judge_candidate(shop, DETECTOR, version, decided_by="test", options=options)
    assert report.verdict is Verdict.PROMOTE
    flagged = decisions(shop)[0]["figures"]["candidate"]["alarms"]
    assert 20 < flagged < 200  # 20 a day of ordinary traffic, and the incidents


def test_without_rows_there_is_nothing_to_train_on(engine: Engine) -> None:
    with pytest.raises(NothingToTrainOn, match="Ingest some with `millrace ingest"):
        run(engine)


def test_as_of_before_the_first_row(shop: Engine) -> None:
    with pytest.raises(NothingToTrainOn, match="There is no log line up to 2020-01-01"):
        run(shop, as_of=datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(("n", "step"), [(5_000, 10), (1, 1000)], ids=["one minute", "one row"])
def test_rows_that_lie_too_close_together(engine: Engine, n: int, step: int) -> None:
    insert_logs(engine, n, step=timedelta(milliseconds=step))
    with pytest.raises(NothingToTrainOn, match="Ingest logs that cover a longer time"):
        run(engine)
    assert scalar(engine, "select count(*) from millrace.model_registry") == 0


def test_too_few_rows(engine: Engine) -> None:
    insert_logs(engine, 90, step=timedelta(hours=1))
    with pytest.raises(NothingToTrainOn, match="needs at least 100 rows to train on"):
        run(engine)


def test_rows_without_service_or_numbers(shop: Engine) -> None:
    """Only ts and message are required of a row."""
    change(shop, "update millrace.logs set service = null, level = null, response_time_ms = null, status_code = null")
    assert run(shop).holdout_positives >= 30
    assert decisions(shop)[0]["figures"]["rule_f1"] == {}


def test_labels_of_rows_that_are_gone_do_not_stop_the_training(shop: Engine) -> None:
    change(shop, "delete from millrace.logs where log_id % 50 <> 0 and extract(hour from ts) = 20")
    change(shop, "update millrace.labels set label = '1' where extract(hour from ts) = 20")
    report = run(shop)
    held = version_row(shop, 1)["holdout_window"]
    assert report.holdout_rows == scalar(
        shop,
        "select count(*) from millrace.logs join millrace.labels_current l using (ts) where log_id = row_id"
        " and ts >= :a and ts < :b",
        a=held.lower,
        b=held.upper,
    )


def test_the_same_training_gives_the_same_bytes(shop: Engine) -> None:
    one, two = (fit_candidate(shop, DETECTOR, as_of=END, trained_by="test") for _ in range(2))
    assert version_row(shop, one)["artifact_digest"] == version_row(shop, two)["artifact_digest"]
    assert scalar(shop, "select count(*) from millrace.model_artifacts") == 1
    other = fit_candidate(shop, DETECTOR, as_of=END, trained_by="test", options=TrainingOptions(seed=1))
    assert version_row(shop, other)["artifact_digest"] != version_row(shop, one)["artifact_digest"]
    assert version_row(shop, other)["data_hash"] == version_row(shop, one)["data_hash"]
