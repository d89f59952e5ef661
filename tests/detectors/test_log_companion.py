"""log_anomaly with verdicts: the variant that learned from them, and when there is none."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mllib import artifacts
from mllib.detectors import detector
from mllib.detectors._companion import Companion
from mllib.detectors._labelled_sample import LabelledSample
from mllib.detectors._log_features import measure, stack, subset, take
from mllib.detectors.base import COMPANION_FORMAT, ENSEMBLE_FORMAT, ModelState
from mllib.detectors.log_anomaly import LogAnomalyModel
from mllib.errors import BadArtifact
from mllib.features.stream import with_context
from mllib.gate.evaluation import average_precision
from tests.factories import in_chunks, make_logs

KIND = detector("log_anomaly")
ROWS = 4_000


def labelled(n: int = ROWS, *, seed: int = 0) -> pl.DataFrame:
    """Ordinary lines, of which those of two services at one hundred to two hundred milliseconds are trouble.

    Nothing about these is rare: the same services, levels, wording and times occur in normal lines as well.
    """
    rng = np.random.default_rng(100 + seed)
    logs = make_logs(n, seed=seed, span_s=10.0 * n, response_time_ms=rng.uniform(1.0, 300.0, n))
    of_two = pl.col("service").is_in(logs["service"].unique().sort()[:2].to_list())
    return logs.with_columns(
        label=pl.when(of_two & pl.col("response_time_ms").is_between(100.0, 200.0))
        .then(pl.lit("1"))
        .otherwise(pl.lit("0"))
    )


@pytest.fixture(scope="module")
def variants() -> tuple[LogAnomalyModel, ...]:
    return KIND.fit(in_chunks(labelled(), 777), rows=ROWS).variants()


@pytest.fixture(scope="module")
def companion(variants: tuple[LogAnomalyModel, ...]) -> LogAnomalyModel:
    return variants[-1]


@pytest.fixture(scope="module")
def later() -> pl.DataFrame:
    return labelled(2_000, seed=1)


def unlabelled(logs: pl.DataFrame) -> pl.DataFrame:
    return logs.drop("label")


def test_it_finds_what_is_not_rare_but_was_labelled(variants: tuple[LogAnomalyModel, ...], later: pl.DataFrame) -> None:
    positive = (later["label"] == "1").to_numpy()
    ranked = [average_precision(model.raw_scores(unlabelled(later)), positive) or 0.0 for model in variants]
    assert ranked[-1] > 0.9
    assert max(ranked[:-1]) < 0.5


def test_it_is_one_more_variant_and_the_others_are_as_without_labels(
    variants: tuple[LogAnomalyModel, ...], companion: LogAnomalyModel
) -> None:
    without = KIND.fit([unlabelled(labelled())], rows=ROWS).variants()
    assert [artifacts.dumps(model.state()) for model in variants[:-1]] == [
        artifacts.dumps(model.state()) for model in without
    ]
    assert {model.algorithm for model in without} == {"ensemble"}
    assert companion.algorithm == "ensemble and companion"
    assert companion.parameters["anomaly_rows"] == (labelled()["label"] == "1").sum()
    assert companion.parameters["normal_rows"] == (labelled()["label"] == "0").sum()


@pytest.mark.parametrize(
    ("verdict", "offered"),
    [
        (pl.lit("0"), False),
        (pl.lit("1"), False),
        (pl.lit(None, dtype=pl.String), False),
        (pl.when(pl.int_range(pl.len()) < 29).then(pl.lit("1")).otherwise(pl.lit("0")), False),
        (pl.when(pl.int_range(pl.len()) < 29).then(pl.lit("normal")).otherwise(pl.lit("1")), False),
        (pl.when(pl.int_range(pl.len()) < 30).then(pl.lit("broken disk")).otherwise(pl.lit("0")), True),
    ],
    ids=["all normal", "all anomalies", "no verdict", "29 anomalies", "29 normal", "30 by name"],
)
def test_verdicts_of_one_kind_or_too_few_give_none(verdict: pl.Expr, offered: bool) -> None:
    logs = make_logs(600).with_columns(label=verdict)
    assert (len(KIND.fit([logs], rows=600).variants()) == 6) == offered


def test_verdicts_on_context_are_not_learned_from() -> None:
    logs = make_logs(600).with_columns(
        label=pl.when(pl.int_range(pl.len()) < 100).then(pl.lit("1")).otherwise(pl.lit("0")),
        claimed=pl.int_range(pl.len()) >= 80,
    )
    assert len(KIND.fit([logs], rows=520).variants()) == 5


def test_a_row_scores_the_same_alone_and_in_any_chunks(companion: LogAnomalyModel, later: pl.DataFrame) -> None:
    logs = unlabelled(later)
    whole = companion.predict(logs)
    parts = [companion.predict(chunk) for chunk in with_context(in_chunks(logs, 1, 333), KIND.context)]
    assert pl.concat(parts).equals(whole)
    for place in (0, 700, 1_999):
        alone = logs[: place + 1].with_columns(claimed=pl.int_range(pl.len()) == place)
        alone = alone.filter(pl.col("claimed") | (pl.col("ts") > logs["ts"][place] - timedelta(minutes=5)))
        assert companion.predict(alone).equals(whole[place])


def test_how_training_rows_are_cut_makes_no_difference_and_the_seed_does(companion: LogAnomalyModel) -> None:
    again = KIND.fit([labelled()], rows=ROWS).variants()[-1]
    assert artifacts.dumps(again.state()) == artifacts.dumps(companion.state())
    other = KIND.fit([labelled()], rows=ROWS, seed=7).variants()[-1]
    assert not np.array_equal(other.state().arrays["companion_feature"], companion.state().arrays["companion_feature"])


def test_it_survives_its_artifact(companion: LogAnomalyModel, later: pl.DataFrame) -> None:
    moved = companion.with_threshold(0.8)
    data = artifacts.dumps(moved.state())
    assert len(data) < 3_000_000
    again = KIND.load(artifacts.loads(data, artifacts.digest(data)))
    assert again.predict(unlabelled(later)).equals(moved.predict(unlabelled(later)))
    assert (again.parameters, again.algorithm) == (moved.parameters, "ensemble and companion")
    assert again.variants() == (again,)
    assert artifacts.dumps(again.state()) == data


def test_the_older_format_is_its_ensemble_and_each_is_read_as_what_it_says(
    variants: tuple[LogAnomalyModel, ...], companion: LogAnomalyModel
) -> None:
    state = companion.state()
    assert (state.header["format"], variants[0].state().header["format"]) == (COMPANION_FORMAT, ENSEMBLE_FORMAT)
    ensemble = variants[0].state()
    with pytest.raises(BadArtifact):
        KIND.load(ModelState(header={**ensemble.header, "format": COMPANION_FORMAT}, arrays=ensemble.arrays))


def test_damaged_companions_are_refused(companion: LogAnomalyModel) -> None:
    state = companion.state()
    own = [name for name in state.arrays if name.startswith("companion_")]
    assert len(own) == 7
    damaged = [{other: array for other, array in state.arrays.items() if other != name} for name in own]
    damaged += [{**state.arrays, name: state.arrays[name][:-1]} for name in own]
    for name, values in (
        ("companion_gain", np.array([0.0])),
        ("companion_gain", np.array([np.inf])),
        ("companion_gain", np.array([np.nan])),
        ("companion_value", state.arrays["companion_value"] + np.float32(1)),
        ("companion_feature", np.full_like(state.arrays["companion_feature"], 82)),
    ):
        damaged.append({**state.arrays, name: values})
    for arrays in damaged:
        with pytest.raises(BadArtifact):
            KIND.load(ModelState(header=state.header, arrays=arrays))


def test_the_parts_of_an_explanation_add_up(companion: LogAnomalyModel, later: pl.DataFrame) -> None:
    logs = unlabelled(later)
    features = companion.features(logs)
    judge = companion._forest.judge
    assert isinstance(judge, Companion)
    assert judge.reasons(features).parts.sum(axis=1) == pytest.approx(judge.excess(features), abs=1e-6)
    told = [json.loads(text) for text in companion.predict(logs)["explanation"].drop_nulls()]
    assert len(told) > 50
    for explanation in told:
        assert explanation["excess"] == pytest.approx(sum(explanation["members"].values()), abs=3e-3)
        shares = [feature["share"] for feature in explanation["features"]]
        assert sum(shares) + explanation["other"] == pytest.approx(1, abs=5e-4)
    right = (later["label"] == "1").to_numpy() & companion.predict(logs)["is_anomaly"].to_numpy()
    texts = companion.predict(logs)["explanation"].filter(pl.Series(right)).to_list()
    first = [json.loads(text)["features"][0]["name"] for text in texts]
    assert np.mean([name in ("response_time", "service") for name in first]) > 0.9
    assert np.mean([json.loads(text)["members"]["companion"] > 0 for text in texts]) > 0.9


def test_its_expected_threshold_is_that_of_lines_it_did_not_learn_from(
    companion: LogAnomalyModel, later: pl.DataFrame
) -> None:
    raw = companion.raw_scores(unlabelled(later))
    for rate in (0.05, 0.1, 0.2):
        assert (raw >= companion.expected_threshold(rate)).mean() == pytest.approx(rate, abs=0.03)


def test_labelled_rows_keep_their_context_and_the_lowest_hashes_whatever_the_chunks() -> None:
    logs = labelled(3_000)

    def sampled(*sizes: int) -> tuple[LabelledSample, np.ndarray, np.ndarray]:
        sample = LabelledSample(
            measure=measure, take=take, stack=stack, max_normal=200, max_per_kind=50, max_attacks=50
        )
        for frame in with_context(in_chunks(logs, *sizes), KIND.context):
            sample.add(frame)
        measured, kinds = sample.collect()
        return sample, measured.numbers, kinds

    whole, numbers, kinds = sampled(3_000)
    parts, of_parts, of_kinds = sampled(1, 90, 40)
    assert np.array_equal(numbers, of_parts, equal_nan=True)
    assert kinds.tolist() == of_kinds.tolist()
    assert ((kinds == "").sum(), (kinds == "1").sum()) == (200, 50)
    assert np.array_equal(whole.hashes, parts.hashes)
    assert whole.labelled == parts.labelled == 3_000


def test_taking_all_rows_in_order_is_the_subset_of_all() -> None:
    measured = measure(make_logs(300), np.arange(300))
    all_of_it, taken = subset(measured, np.ones(300, dtype=bool)), take(measured, np.arange(300)[::-1])
    assert np.array_equal(taken.numbers[::-1], all_of_it.numbers, equal_nan=True)
    assert taken.service_of[::-1].tolist() == all_of_it.service_of.tolist()
    assert taken.services == all_of_it.services
    said = [taken.templates[code] for code in taken.template_of.tolist()]
    assert said[::-1] == [all_of_it.templates[code] for code in all_of_it.template_of.tolist()]
