"""What is pipeline_drift's own: histories of repositories, what is new, issues, the drift score, and runs as they
should not be."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mllib.detectors import detector
from mllib.detectors._run_baselines import Baselines, Tails, training_columns
from mllib.detectors._run_columns import Runs, measure
from mllib.detectors.base import Model
from mllib.detectors.pipeline_drift import DRIFT, PipelineDriftModel, risk_level
from mllib.errors import BadInput, NothingToTrainOn
from mllib.sources import PIPELINE_FEATURES
from tests.detectors.conftest import fitted
from tests.detectors.runs import make_runs
from tests.factories import in_chunks

KIND = detector("pipeline_drift")
ISSUES = {"remote_script", "network_host", "secret", "privilege"}


@pytest.fixture(scope="module")
def drift() -> PipelineDriftModel:
    found = fitted("pipeline_drift")
    assert isinstance(found, PipelineDriftModel)
    return found


def calm_run(**columns: Any) -> pl.DataFrame:
    """One run of shop/1 that is like its others, with some columns replaced."""
    ordinary = make_runs(400, seed=9).filter(pl.col("change").is_null(), pl.col("label") == "0")
    run = ordinary.filter(pl.col("repository") == "shop/1").head(1)
    return run.with_columns(**{name: pl.lit(value, dtype=run.schema[name]) for name, value in columns.items()})


def evidence(**contacts: tuple[str, int]) -> str:
    return json.dumps({"contacts": {host.replace("_", "."): met for host, met in contacts.items()}})


def told(model: Model, run: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model.with_threshold(1e-6).predict(run)["explanation"][0])
    return found


def test_security_changes_rank_above_failures_and_failures_above_the_rest(drift: PipelineDriftModel) -> None:
    later = make_runs(3_000, seed=3)
    raw = drift.raw_scores(later)
    changed = later["change"].is_not_null().to_numpy()
    failed = (later["label"] != "0").to_numpy() & ~changed
    calm = ~failed & ~changed
    assert (raw[changed] >= 0.5).mean() > 0.95
    assert (raw[changed] > np.quantile(raw[calm], 0.95)).mean() > 0.95
    assert (raw[calm] >= 0.5).mean() < 0.1
    assert np.median(raw[failed]) > np.quantile(raw[calm], 0.9)


@pytest.mark.parametrize("kind", sorted(ISSUES))
def test_each_kind_of_change_is_named_with_its_history(drift: PipelineDriftModel, kind: str) -> None:
    later = make_runs(3_000, seed=3)
    changed = later.filter(pl.col("change") == kind)
    prediction = drift.predict(changed)
    explanations = [json.loads(text) for text in prediction["explanation"].drop_nulls()]
    assert len(explanations) > 0.9 * changed.height
    leading = [explanation["issues"][0] for explanation in explanations if "issues" in explanation]
    assert sum(issue["kind"] == kind for issue in leading) > 0.9 * changed.height
    for explanation in explanations:
        assert explanation["baseline"] == "repository"
        assert explanation["risk_level"] in {"high", "critical"}
        for issue, feature in zip(explanation["issues"], explanation["features"], strict=True):
            assert issue.keys() == {"kind", "feature", "why", "look_at"}
            assert issue["feature"] == feature["name"]
            assert feature["value"] > feature["normal"][1] or feature["share"] < 0.2


def test_what_a_repository_does_every_day_is_no_change_there_and_is_one_elsewhere(drift: PipelineDriftModel) -> None:
    daily = calm_run(repository="shop/2", language="go", privilege_changes=2.0)
    elsewhere = calm_run(repository="shop/0", language="java", privilege_changes=2.0)
    place = drift.feature_names.index("privilege_surprise")
    assert drift.features(daily)[0, place] < drift.features(elsewhere)[0, place]


def test_a_host_is_new_until_the_training_knows_it(drift: PipelineDriftModel) -> None:
    place = drift.feature_names.index("network_host_surprise")
    known = calm_run(distinct_network_hosts=1.0, evidence=evidence(cache1_example_org=("command", 3)))
    new = calm_run(distinct_network_hosts=1.0, evidence=evidence(drop_example_net=("command", 3)))
    mentioned = calm_run(distinct_network_hosts=1.0, evidence=evidence(drop_example_net=("mention", 3)))
    surprises = [float(drift.features(run)[0, place]) for run in (known, mentioned, new)]
    assert surprises == sorted(set(surprises))
    learned = KIND.fit(
        [pl.concat([make_runs(3_000), new.with_columns(log_id=pl.lit(9_000, dtype=pl.Int64))])], rows=3_001
    )
    assert learned.features(new)[0, place] < surprises[2]


@pytest.mark.parametrize(
    ("host", "new"),
    [
        *(("more.example.org", False), ("a.b.Example.ORG", False), ("example.net", True), ("other.com", True)),
        *(("known.github.io", False), ("unknown.github.io", True), ("x.known.co.uk", False), ("x.other.co.uk", True)),
        *(("10.1.2.3", False), ("10.9.2.3", True)),
    ],
)
def test_a_host_is_known_by_its_domain_unless_anybody_may_have_a_name_there(host: str, new: bool) -> None:
    contacts = {known: ["command", 1] for known in ("known.github.io", "known.co.uk", "10.1.2.3", "www.example.org")}
    rows = make_runs(300, evidence=json.dumps({"contacts": contacts}))
    model = KIND.fit([rows], rows=300)
    run = calm_run(evidence=json.dumps({"contacts": {host: ["command", 1]}}), distinct_network_hosts=None)
    assert (model.features(run)[0, model.feature_names.index("network_host_surprise")] > 0) == new


def test_hosts_without_evidence_count_as_transfers(drift: PipelineDriftModel) -> None:
    place = drift.feature_names.index("network_host_surprise")
    listed = calm_run(evidence=None, hosts=["drop.example.net"])
    transferred = calm_run(evidence=evidence(drop_example_net=("transfer", 1)))
    assert drift.features(listed)[0, place] == drift.features(transferred)[0, place] > 0


def test_a_repository_without_a_history_is_compared_with_its_language_then_with_all(drift: PipelineDriftModel) -> None:
    odd = {"remote_script_executions": 3.0}
    baselines = [
        told(drift, calm_run(repository=repository, language=language, **odd))["baseline"]
        for repository, language in (("shop/1", "python"), ("new/one", "python"), (None, "cobol"), (None, None))
    ]
    assert baselines == ["repository", "language", "all runs", "all runs"]


def test_a_short_history_is_drawn_towards_the_longer_one() -> None:
    quiet = np.zeros((400, 1), dtype=np.float32)
    every = Tails(quiet, None, 0)
    asked = np.ones(1, dtype=np.float32)
    busy = [Tails(np.ones((n, 1), dtype=np.float32), every, 2).upper(0, asked)[0] for n in (1, 5, 60)]
    assert every.upper(0, asked)[0] < busy[0] < busy[1] < busy[2] < 1
    assert busy[0] == pytest.approx((1 + 4 * 0.5 / 401) / 5)


def runs(hosts: list[list[str]], repositories: list[str | None]) -> Runs:
    n = len(hosts)
    made = make_runs(n).with_columns(
        repository=pl.Series(repositories, dtype=pl.String),
        evidence=pl.Series([evidence(**dict.fromkeys(of_run, ("command", 1))) for of_run in hosts]),
    )
    return measure(made)


def test_novelty_in_training_is_as_if_the_repository_or_the_run_had_not_been_there() -> None:
    columns = training_columns(
        runs([["a", "b"], ["a"], ["a", "c"], ["b"], ["d"], ["d"]], ["x", "x", "x", "y", None, None])
    )
    new, here = columns[:, 17], columns[:, 17 + 6]
    assert new.tolist() == [1, 1, 2, 0, 0, 0]
    assert here[:3].tolist() == [1, 0, 1]
    assert np.isnan(here[3:]).all()


def test_the_drift_score_is_a_scale_of_the_training_and_does_not_move_with_the_threshold(
    drift: PipelineDriftModel,
) -> None:
    rows = make_runs(3_000)
    raw = drift.raw_scores(rows)
    scores = drift.drift_score(raw)
    for limit, share in zip(DRIFT, (0.75, 0.9, 0.97), strict=True):
        assert (scores <= limit).mean() == pytest.approx(share, abs=0.02)
    assert ((scores >= 0) & (scores <= 100)).all()
    assert np.array_equal(drift.with_threshold(0.9).drift_score(raw), scores)
    assert [risk_level(score) for score in (0, 30, 30.1, 50, 50.1, 70, 70.1, 100)] == [
        *("low", "low", "medium", "medium", "high", "high", "critical", "critical")
    ]


def test_what_would_be_normal_is_normal_when_scored(drift: PipelineDriftModel) -> None:
    changed = make_runs(3_000, seed=3).filter(pl.col("change").is_in(["remote_script", "secret"]))
    tried = 0
    for row, text in enumerate(drift.predict(changed)["explanation"].to_list()):
        change = json.loads(text or "{}").get("normal_with")
        if change:
            tried += 1
            mended = changed[row].with_columns(pl.lit(float(change["value"])).alias(change["name"]))
            assert drift.raw_scores(mended)[0] < drift.threshold <= drift.raw_scores(changed[row])[0]
    assert tried > 10


def test_labels_choose_what_is_normal_and_may_be_missing() -> None:
    rows = make_runs(3_000)
    unlabelled = KIND.fit([rows.with_columns(label=pl.lit(None, dtype=pl.String))], rows=3_000)
    labelled = fitted("pipeline_drift")
    assert (unlabelled.parameters["passed_rows"], labelled.parameters["passed_rows"]) == (
        0,
        (rows["label"] == "0").sum(),
    )
    later = make_runs(2_000, seed=4)
    failed = ((later["label"] != "0") & later["change"].is_null()).to_numpy()
    assert labelled.raw_scores(later)[failed].mean() > unlabelled.raw_scores(later)[failed].mean()


def test_context_rows_are_not_learned_from() -> None:
    context = make_runs(500, seed=9, log_id=list(range(-500, 0)), claimed=False, evidence=None)
    again = KIND.fit([context, make_runs(3_000).with_columns(ts=pl.col("ts") + timedelta(days=1))], rows=3_000)
    probe = make_runs(500, seed=10)
    assert again.raw_scores(probe).tolist() == fitted("pipeline_drift").raw_scores(probe).tolist()


@pytest.mark.parametrize("rows", [0, 1, 99])
def test_too_few_runs_are_refused(rows: int) -> None:
    with pytest.raises(NothingToTrainOn, match=f"at least 100 rows to train on and got {rows} "):
        KIND.fit(in_chunks(make_runs(max(rows, 1)).head(rows), 40), rows=rows)


def test_it_fits_runs_that_are_all_alike() -> None:
    alike = pl.concat([make_runs(1)] * 300).with_columns(log_id=pl.int_range(300, dtype=pl.Int64))
    model = KIND.fit([alike], rows=300)
    assert np.isfinite(model.raw_scores(alike)).all()
    assert model.predict(alike)["is_anomaly"].mean() <= 0.1


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), float("-inf"), -3.0])
@pytest.mark.parametrize("column", PIPELINE_FEATURES)
def test_missing_and_impossible_numbers_take_the_median_and_surprise_nobody(
    drift: PipelineDriftModel, column: str, odd: float | None
) -> None:
    features = drift.features(calm_run(**{column: odd}))[0]
    median = float(make_runs(3_000)[column].median())  # type: ignore[arg-type]
    assert features[PIPELINE_FEATURES.index(column)] == pytest.approx(median)
    kinds = {"remote_script_executions": "remote_script", "secret_like_tokens": "secret", "image_pulls": "image_pull"}
    if column in kinds:
        assert features[drift.feature_names.index(f"{kinds[column]}_surprise")] == 0


def test_an_empty_log_is_scored_and_extreme_numbers_are(drift: PipelineDriftModel) -> None:
    empty = calm_run(**dict.fromkeys(PIPELINE_FEATURES, 0.0), hosts=[], evidence=None)
    extreme = calm_run(**dict.fromkeys(PIPELINE_FEATURES, 1e308), hosts=["h.example.org"] * 100)
    nothing = calm_run(**dict.fromkeys(PIPELINE_FEATURES), hosts=None, evidence=None, repository=None, language=None)
    for run in (empty, extreme, nothing):
        assert np.isfinite(drift.features(run)).all()
        assert drift.predict(run)["score"].is_between(0, 1).all()
    assert drift.raw_scores(extreme)[0] > 0.5


@pytest.mark.parametrize(
    "told_of",
    [
        *("", "nothing", "[1]", "3", '{"contacts": 3}', '{"contacts": ["a"]}', '{"privileges": {"a": 1}}'),
        '{"contacts": {"h.example.org": null, "i": ["shout", 1], "j": ["command"]}, "privileges": [1, null]}',
        "[" * 60_000,
    ],
)
def test_evidence_in_another_form_says_nothing(drift: PipelineDriftModel, told_of: str) -> None:
    without = drift.features(calm_run(evidence=None, hosts=[]))
    assert drift.features(calm_run(evidence=told_of, hosts=[])).tolist() == without.tolist()


@pytest.mark.parametrize("text", ['"},{"a":"', "\x00\x1b[31m\u202e\n", "😀" * 250, "<b>" * 80, ""])
def test_hostile_words_are_fine_and_stand_in_no_explanation(drift: PipelineDriftModel, text: str) -> None:
    run = calm_run(
        repository=text, language=text, hosts=[text], evidence=json.dumps({"contacts": {text: ["command", 1]}})
    )
    run = run.with_columns(pl.lit(9.0).alias(name) for name in PIPELINE_FEATURES)
    explanation = drift.with_threshold(0.01).predict(run)["explanation"][0]
    assert len(explanation.encode()) < 1_000
    assert explanation.isascii()


def test_columns_that_are_missing_or_of_another_type_are_named(drift: PipelineDriftModel) -> None:
    rows = make_runs(50)
    with pytest.raises(BadInput, match="columns error_lines, hosts, which are missing"):
        drift.predict(rows.drop("error_lines", "hosts"))
    with pytest.raises(BadInput, match="numbers in the columns duration_s, step_count"):
        drift.predict(rows.with_columns(duration_s=pl.lit("long"), step_count=pl.lit("9")))
    with pytest.raises(BadInput, match="text in the columns repository"):
        drift.predict(rows.with_columns(repository=pl.lit(80)))
    with pytest.raises(BadInput, match="lists of texts in the column hosts"):
        drift.predict(rows.with_columns(hosts=pl.lit("a.example.org")))
    more = rows.with_columns(exit_code=pl.lit(1), outcome=pl.lit("failed"))
    assert drift.predict(more).equals(drift.predict(rows))


def test_no_name_out_of_the_runs_is_in_its_artifact(drift: PipelineDriftModel) -> None:
    from mllib import artifacts

    data = artifacts.dumps(drift.state())
    for name in (b"shop", b"example.org", b"sudo", b"python"):
        assert name not in data


def test_histories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllib.detectors._run_baselines.GROUPS", {"language": 2, "repository": 4})
    monkeypatch.setattr("mllib.detectors._run_baselines.KEPT", {"all": 100, "language": 50, "repository": 10})
    found = measure(make_runs(2_000))
    arrays = Baselines.fit(found, training_columns(found)).arrays
    assert len(arrays["tail_groups"]) == 6
    assert len(arrays["tail_values"]) == 100 + 2 * 50 + 4 * 10
