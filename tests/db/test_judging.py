"""The gate on generated, labelled logs: every verdict, on the same rows for both models."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from mllib import artifacts
from mllib.errors import BadInput
from mllib.jobs import judging
from mllib.jobs.judging import judge_candidate
from mllib.jobs.training import fit_candidate
from mllib.store import registry
from mllib.store.database import transaction
from mllib.types import ModelStatus, Policy, Verdict
from tests.db.scoring_factories import DETECTOR, rows, scalar
from tests.db.training_factories import (
    END,
    add_version,
    change,
    decisions,
    make_champion_like,
    run,
    stored_model,
    version_row,
)

FEW = "delete from millrace.labels where label <> '0' and label_id % 20 <> 0"

ONE_CLASS = "delete from millrace.labels where label <> '0'"

ALL_POSITIVE = "delete from millrace.labels where label = '0'"

NONE = "truncate millrace.labels"


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
    """False alarms cannot be counted there, and flagging every row has an F1 of 1."""
    change(shop, ALL_POSITIVE)
    report = run(shop)
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "hardly any labelled row is an ordinary one" in report.reason
    assert report.holdout_rows == report.holdout_positives >= 30


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
        make_champion_like(shop, version, model.with_threshold(model.threshold + float(step)))
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
    make_champion_like(shop, version, model.with_threshold(model.expected_threshold(0.3)))
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


def test_a_better_candidate_that_fails_one_service_is_refused_by_its_name(shop: Engine) -> None:
    """All lines of one service are labelled anomalies, of which a champion that flags much finds more."""
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    model = stored_model(shop, version)
    make_champion_like(shop, version, model.with_threshold(model.expected_threshold(0.3)))
    holdout = version_row(shop, version)["holdout_window"]
    labelled = change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, log_id, '1', 'import' from millrace.logs"
        " where service = 'payments' and ts >= :a and ts < :b",
        a=holdout.lower,
        b=holdout.upper,
    )
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")
    assert report.candidate_f1 is not None
    assert report.champion_f1 is not None
    assert report.candidate_f1 > report.champion_f1
    assert report.verdict is Verdict.REFUSE
    assert "clearly worse than the champion for service payments (F1 " in report.reason
    figures = decisions(shop)[-1]["figures"]
    assert [gate["name"] for gate in figures["gates"] if not gate["passed"]] == ["slices"]
    segments = {(s["dimension"], s["value"]): s for s in figures["segments"]}
    assert segments["service", "payments"]["positives"] == labelled
    for dimension in ("service", "level"):
        parts = [s for (of, _), s in segments.items() if of == dimension]
        assert sum(s["rows"] for s in parts) == report.holdout_rows
        assert sum(s["positives"] for s in parts) == report.holdout_positives


def test_rows_without_service_and_level_are_a_segment_of_their_own(shop: Engine) -> None:
    run(shop)
    change(shop, "update millrace.logs set service = null, level = null where service = 'mailer'")
    run(shop)
    segments = decisions(shop)[-1]["figures"]["segments"]
    assert {"service", "level"} == {s["dimension"] for s in segments if s["value"] == "(none)" and s["rows"] > 0}
    assert "mailer" not in {s["value"] for s in segments}


def test_significance_is_told_beside_the_verdict_and_looks_at_the_holdout_are_counted(shop: Engine) -> None:
    first, again = run(shop), run(shop)
    assert first.holdout_hash == again.holdout_hash
    figures = [row["figures"] for row in decisions(shop)]
    assert [f["holdout_looks"] for f in figures] == [1, 2]
    # The first has no rival, and the second is the same model again.
    assert (figures[0]["permutation_p"], figures[0]["mcnemar_p"], figures[0]["segments"]) == (None, None, [])
    assert (figures[1]["permutation_p"], figures[1]["mcnemar_p"]) == (1.0, 1.0)
    elsewhere = run(shop, as_of=END - timedelta(days=2))
    assert elsewhere.holdout_hash != first.holdout_hash
    assert decisions(shop)[-1]["figures"]["holdout_looks"] == 1


def test_a_candidate_whose_stored_model_is_damaged_is_refused_and_the_refusal_kept(shop: Engine) -> None:
    run(shop)
    version = add_version(shop, like=1, content=b"no archive of arrays")
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")
    assert (report.verdict, report.candidate_f1, report.champion_version) == (Verdict.REFUSE, None, 1)
    assert report.reason.startswith("Refused: the candidate's stored model cannot be used as it is")
    assert "it is not an archive of arrays" in report.reason
    assert (version_row(shop, version)["status"], version_row(shop, 1)["status"]) == ("refused", "champion")
    assert decisions(shop)[-1]["figures"]["defects"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"feature_names": ("one",)}, "features of the stored model are not those on record"),
        ({"threshold": 0.25}, "on record is 0.25"),
    ],
    ids=["features", "threshold"],
)
def test_a_model_that_is_not_what_the_registry_says_is_refused(shop: Engine, other: dict[str, Any], said: str) -> None:
    first = fit_candidate(shop, DETECTOR, trained_by="test")
    content = artifacts.dumps(stored_model(shop, first).state())
    report = judge_candidate(shop, DETECTOR, add_version(shop, like=first, content=content, **other), decided_by="test")
    assert report.verdict is Verdict.REFUSE
    assert said in report.reason
    # The same model as it was registered is fit to be the first champion.
    assert judge_candidate(shop, DETECTOR, first, decided_by="test").verdict is Verdict.PROMOTE


def test_a_first_champion_that_flags_far_too_much_serves_and_says_so(shop: Engine) -> None:
    first = fit_candidate(shop, DETECTOR, trained_by="test")
    model = stored_model(shop, first)
    noisy = model.with_threshold(model.expected_threshold(0.2))
    version = add_version(shop, like=first, content=artifacts.dumps(noisy.state()), threshold=noisy.threshold)
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")
    assert report.verdict is Verdict.PROMOTE
    figures = decisions(shop)[-1]["figures"]
    assert figures["candidate"]["f1"] > figures["flag_everything_f1"]
    assert "most alarms will be false" in report.reason


def test_time_size_and_digest_of_both_models_are_in_the_figures(shop: Engine) -> None:
    run(shop)
    run(shop)
    figures = decisions(shop)[-1]["figures"]
    for name, version in (("candidate_footprint", 2), ("champion_footprint", 1)):
        assert figures[name]["seconds"] > 0
        assert figures[name]["artifact_bytes"] > 1_000
        assert figures[name]["artifact_digest"] == version_row(shop, version)["artifact_digest"]
    assert {gate["name"] for gate in figures["gates"]} >= {"usable", "cost"}
