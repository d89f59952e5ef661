"""Training and the gate on generated, labelled logs: every verdict, and nothing that was not known at the time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from mllib import artifacts, demo
from mllib.detectors import detector
from mllib.detectors.base import Model
from mllib.errors import BadInput, NothingToTrainOn
from mllib.jobs import judging
from mllib.jobs.intake import ingest
from mllib.jobs.judging import TrainReport, judge_candidate, train
from mllib.jobs.training import TrainingOptions, fit_candidate
from mllib.store import registry
from mllib.store.database import engine_for, transaction
from mllib.types import ModelStatus, Policy, Verdict
from tests.conftest import _command, _in
from tests.db.scoring_factories import DETECTOR, insert_logs, rows, scalar

END = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 14
ROWS = 12_000


@pytest.fixture(scope="module")
def labelled(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with two weeks of labelled logs, which is only ever copied."""
    name = f"millrace_labelled_{uuid.uuid4().hex[:8]}"
    _command(server, f"create database {name} template {template}")
    engine = engine_for(_in(server, name))
    files = demo.generate(tmp_path_factory.mktemp("demo"), now=END, days=DAYS, rows=ROWS)
    ingest(engine, files, format_name="jsonl", with_labels=True)
    engine.dispose()
    yield name
    _command(server, f"drop database {name} with (force)")


@pytest.fixture
def shop(server: str, labelled: str) -> Iterator[Engine]:
    """A test's own copy of it."""
    name = f"millrace_{uuid.uuid4().hex[:12]}"
    _command(server, f"create database {name} template {labelled}")
    engine = engine_for(_in(server, name))
    yield engine
    engine.dispose()
    _command(server, f"drop database {name} with (force)")


def run(engine: Engine, **how: Any) -> TrainReport:
    return train(engine, DETECTOR, by="test", **how)


def change(engine: Engine, statement: str, **binds: Any) -> int:
    with transaction(engine) as conn:
        return conn.execute(text(statement), binds).rowcount


def version_row(engine: Engine, version: int) -> dict[str, Any]:
    with transaction(engine) as conn:
        found = conn.execute(text("select * from millrace.model_registry where version = :v"), {"v": version}).one()
    return dict(found._mapping)


def decisions(engine: Engine) -> list[dict[str, Any]]:
    with transaction(engine) as conn:
        found = conn.execute(text("select * from millrace.promotion_decisions order by decision_id"))
        return [dict(row._mapping) for row in found]


def stored_model(engine: Engine, version: int) -> Model:
    with transaction(engine) as conn:
        return detector(DETECTOR).load(artifacts.loads(*registry.artifact(conn, DETECTOR, version)))


def test_the_first_candidate_is_promoted_and_the_same_again_refused(shop: Engine) -> None:
    first = run(shop)
    assert first.verdict is Verdict.PROMOTE
    assert first.champion_f1 is None
    assert first.candidate_f1 is not None
    assert first.candidate_f1 > 0.3
    assert first.reason.startswith("Promoted as the first champion: ")
    second = run(shop)
    assert (second.version, second.champion_version) == (2, 1)
    assert second.verdict is Verdict.REFUSE
    assert second.candidate_f1 == second.champion_f1 == first.candidate_f1
    assert "is the same as that of the champion" in second.reason
    assert second.holdout_hash == first.holdout_hash
    assert rows(shop, "select version, status from millrace.model_registry order by 1") == [
        (1, "champion"),
        (2, "refused"),
    ]
    recorded = decisions(shop)
    assert [(row["verdict"], row["other_verdict"], row["kind"]) for row in recorded] == [
        ("promote", "promote", "gate"),
        ("refuse", "refuse", "gate"),
    ]
    assert recorded[1]["reason"] == second.reason
    assert recorded[1]["figures"]["candidate"]["rows"] == recorded[1]["figures"]["champion"]["rows"]


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
    assert len(row["feature_names"]) == 78
    assert row["parameters"]["n_estimators"] == 100
    assert row["parameters"]["training"]["min_positives"] == 30
    assert row["validation_metrics"]["positives"] == row["label_counts"]["validation"]["positives"]
    assert 0 < row["validation_metrics"]["f1"] <= 1
    assert {"python", "numpy", "polars", "scikit-learn"} <= row["library_versions"].keys()
    assert row["algorithm"] == "isolation forest"
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
    changing = ("version", "trained_at")
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


def test_rows_that_the_champion_was_trained_on_are_left_out_and_counted(shop: Engine) -> None:
    run(shop)
    trained = version_row(shop, 1)["train_window"]
    as_of = trained.upper + timedelta(days=1)
    report = run(shop, as_of=as_of)
    row = version_row(shop, 2)
    assert row["holdout_window"].lower < trained.upper < row["holdout_window"].upper
    figures = decisions(shop)[1]["figures"]
    assert figures["excluded_rows"] > 0
    assert report.holdout_rows + figures["excluded_rows"] == row["label_counts"]["holdout"]["labelled"]
    assert report.holdout_rows == scalar(
        shop,
        "select count(*) from millrace.labels_current where ts >= :a and ts < :b",
        a=trained.upper,
        b=row["holdout_window"].upper,
    )
    assert figures["candidate"]["rows"] == figures["champion"]["rows"] == report.holdout_rows


def test_a_holdout_that_the_champion_was_trained_on_entirely_proves_nothing(shop: Engine) -> None:
    run(shop)
    report = run(shop, as_of=version_row(shop, 1)["train_window"].upper)
    assert (report.verdict, report.holdout_rows) == (Verdict.NOT_ENOUGH_EVIDENCE, 0)
    assert "rows that a model was trained on are left out" in report.reason
    assert version_row(shop, 1)["status"] == "champion"


@pytest.mark.parametrize("slices", ["validation", "everything"])
def test_flipped_labels_promote_nobody(shop: Engine, slices: str) -> None:
    """With all labels flipped a model that flags nearly every row has the better F1; the alert rate gives it away."""
    run(shop)
    window = version_row(shop, 1)["validation_window"]
    flipped = change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, row_id, case label when '0' then '1' else"
        " '0' end, 'import' from millrace.labels_current where (ts >= :a and ts < :b) or :all",
        a=window.lower,
        b=window.upper,
        all=slices == "everything",
    )
    assert flipped > 1_000
    report = run(shop)
    assert report.verdict is Verdict.REFUSE
    assert report.candidate_f1 is not None
    assert report.champion_f1 is not None
    if slices == "everything":
        assert report.candidate_f1 > report.champion_f1
    assert "the limit 3 times that" in report.reason
    assert version_row(shop, 1)["status"] == "champion"


FEW = "delete from millrace.labels where label <> '0' and label_id % 20 <> 0"
ONE_CLASS = "delete from millrace.labels where label <> '0'"
ALL_POSITIVE = "delete from millrace.labels where label = '0'"
NONE = "truncate millrace.labels"


@pytest.mark.parametrize("champion", [False, True], ids=["no champion", "a champion"])
@pytest.mark.parametrize("labels", [FEW, ONE_CLASS, NONE], ids=["few", "one class", "none"])
def test_too_few_labels_are_not_enough_evidence(shop: Engine, labels: str, champion: bool) -> None:
    if champion:
        run(shop)
    change(shop, labels)
    report = run(shop)
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert report.holdout_positives < 30
    assert "at least 30 are needed" in report.reason
    assert version_row(shop, report.version)["status"] == "candidate"
    assert ("millrace promote log_anomaly" in report.reason) is not champion
    with transaction(shop) as conn:
        assert registry.champion(conn, DETECTOR) == (1 if champion else None)
    if not champion:
        judging.promote(shop, DETECTOR, report.version, reason="on trust", by="test")
        with transaction(shop) as conn:
            assert registry.champion(conn, DETECTOR) == report.version


def test_labels_that_are_all_positive_promote_nobody(shop: Engine) -> None:
    """Flagging every row has an F1 of 1 there, which cannot be beaten."""
    change(shop, ALL_POSITIVE)
    report = run(shop)
    assert report.verdict is Verdict.REFUSE
    assert report.holdout_rows == report.holdout_positives >= 30


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


def test_a_dry_run_records_nothing(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    report = judge_candidate(shop, DETECTOR, version, decided_by="test", dry_run=True)
    assert report.verdict is Verdict.PROMOTE
    assert decisions(shop) == []
    assert version_row(shop, version)["status"] == ModelStatus.CANDIDATE
    real = judge_candidate(shop, DETECTOR, version, decided_by="test")
    assert real == report
    assert version_row(shop, version)["status"] == ModelStatus.CHAMPION


def test_a_version_is_judged_once(shop: Engine) -> None:
    report = run(shop)
    with pytest.raises(BadInput, match="is champion already, so there is nothing left to judge"):
        judge_candidate(shop, DETECTOR, report.version, decided_by="test")
    with pytest.raises(BadInput, match="no version 12"):
        judge_candidate(shop, DETECTOR, 12, decided_by="test")
    assert len(decisions(shop)) == 1


def test_the_policies_differ_on_a_small_gain(shop: Engine) -> None:
    """The champion is the candidate with a slightly worse threshold: better, but not beyond doubt."""
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    model = stored_model(shop, version)
    for step in np.arange(0.001, 0.1, 0.002):
        _make_champion(shop, version, model.with_threshold(model.threshold + float(step)))
        strict = judge_candidate(shop, DETECTOR, version, decided_by="test", dry_run=True)
        if strict.verdict is Verdict.PROMOTE:
            break
    assert strict.verdict is Verdict.PROMOTE
    assert strict.champion_f1 is not None
    assert strict.candidate_f1 is not None
    assert strict.candidate_f1 > strict.champion_f1
    assert "The evidence policy would refuse it." in strict.reason
    evidence = judge_candidate(shop, DETECTOR, version, policy=Policy.EVIDENCE, decided_by="test")
    assert evidence.verdict is Verdict.REFUSE
    assert "The strict policy would promote it." in evidence.reason
    assert (evidence.candidate_f1, evidence.holdout_hash) == (strict.candidate_f1, strict.holdout_hash)
    recorded = decisions(shop)[-1]
    assert (recorded["policy"], recorded["other_verdict"]) == ("evidence", "promote")
    assert recorded["figures"]["bootstrap"]["lower"] <= 0 < recorded["figures"]["bootstrap"]["difference"]


def test_a_large_gain_convinces_both_policies(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    model = stored_model(shop, version)
    _make_champion(shop, version, model.with_threshold(model.expected_threshold(0.3)))
    report = judge_candidate(shop, DETECTOR, version, policy=Policy.EVIDENCE, decided_by="test")
    assert report.verdict is Verdict.PROMOTE
    assert decisions(shop)[-1]["other_verdict"] == "promote"
    with transaction(shop) as conn:
        assert registry.champion(conn, DETECTOR) == version


def test_a_replay_counts_from_its_as_of(shop: Engine) -> None:
    as_of = END - timedelta(days=2)
    run(shop, as_of=as_of)
    decided = decisions(shop)[0]
    assert decided["as_of"] == as_of < decided["decided_at"]
    champion_at = "select millrace.champion_at('log_anomaly', :moment)"
    assert scalar(shop, champion_at, moment=as_of - timedelta(seconds=1)) is None
    assert scalar(shop, champion_at, moment=as_of) == 1


def test_the_same_training_gives_the_same_bytes(shop: Engine) -> None:
    one, two = (fit_candidate(shop, DETECTOR, as_of=END, trained_by="test") for _ in range(2))
    assert version_row(shop, one)["artifact_digest"] == version_row(shop, two)["artifact_digest"]
    assert scalar(shop, "select count(*) from millrace.model_artifacts") == 1
    other = fit_candidate(shop, DETECTOR, as_of=END, trained_by="test", options=TrainingOptions(seed=1))
    assert version_row(shop, other)["artifact_digest"] != version_row(shop, one)["artifact_digest"]
    assert version_row(shop, other)["data_hash"] == version_row(shop, one)["data_hash"]


def _make_champion(engine: Engine, like: int, model: Model) -> int:
    """Puts a model into the registry beside version ``like``, trained on the same, and makes it champion."""
    content = artifacts.dumps(model.state())
    with transaction(engine) as conn:
        beside = registry.get(conn, DETECTOR, like)
        version = registry.add(
            conn,
            registry.NewVersion(
                detector=DETECTOR,
                artifact=content,
                artifact_digest=artifacts.digest(content),
                algorithm=model.algorithm,
                parameters={},
                feature_names=model.feature_names,
                threshold=model.threshold,
                seed=1,
                train=beside.train,
                validation=beside.validation,
                holdout=beside.holdout,
                training_rows=beside.training_rows,
                label_counts={},
                data_hash="0",
                validation_metrics={},
                code_revision=None,
                library_versions={},
                as_of=beside.as_of,
                trained_by="test",
            ),
        )
    judging.promote(engine, DETECTOR, version, reason="a test needs it", by="test", against_current=True)
    return version
