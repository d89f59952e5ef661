"""What is network_threat's own: labels, a threshold that rests on normal connections, and connections as they should
not be."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mllib.demo.connections import LATE
from mllib.detectors import detector
from mllib.detectors._class_trees import ClassTrees, from_sklearn
from mllib.detectors._connection_features import FEATURES, NUMBERS, TEXTS
from mllib.detectors._connection_sample import ConnectionSample
from mllib.detectors.base import Model
from mllib.detectors.network_threat import FALSE_ALARMS
from mllib.errors import BadArtifact, BadInput, NothingToTrainOn
from tests.detectors.conftest import fitted
from tests.detectors.connections import make_connections
from tests.factories import in_chunks

KIND = detector("network_threat")


@pytest.fixture(scope="module")
def threat() -> Model:
    return fitted("network_threat")


def test_its_threshold_rests_on_normal_connections(threat: Model) -> None:
    assert threat.threshold == threat.expected_threshold(FALSE_ALARMS)
    later = make_connections(8_000, seed=5)
    raw = threat.raw_scores(later)
    normal = (later["label"] == "0").to_numpy()
    for rate, slack in ((0.05, 0.025), (0.2, 0.05)):
        assert (raw[normal] >= threat.expected_threshold(rate)).mean() == pytest.approx(rate, abs=slack)


def test_an_attack_that_training_has_not_seen_is_found(threat: Model) -> None:
    known = make_connections(9_000, seed=6).filter(pl.col("label") != LATE)
    model = KIND.fit([known], rows=known.height)
    unseen = make_connections(20_000, seed=7).filter(pl.col("label") == LATE)
    assert unseen.height > 100
    assert model.predict(unseen)["is_anomaly"].mean() > 0.9


def test_rows_without_a_verdict_and_context_are_not_learned_from() -> None:
    rows = make_connections(3_000)
    hidden = make_connections(2_000, seed=8).with_columns(
        log_id=pl.col("log_id") + 5_000, label=pl.lit(None, dtype=pl.String), ts=pl.col("ts") + timedelta(days=1)
    )
    context = make_connections(500, seed=9, log_id=list(range(-500, 0)), claimed=False)
    again = KIND.fit([context, rows, hidden], rows=5_000)
    parameters = {**again.parameters, "rows": 3_000}
    assert parameters == fitted("network_threat").parameters
    probe = make_connections(1_000, seed=10)
    assert again.raw_scores(probe).tolist() == fitted("network_threat").raw_scores(probe).tolist()


@pytest.mark.parametrize(("normal", "attacks"), [(0, 0), (3_000, 29), (499, 200)])
def test_too_few_of_either_are_refused(normal: int, attacks: int) -> None:
    rows = make_connections(20_000)
    parts = [rows.filter(pl.col("label") == "0").head(normal), rows.filter(pl.col("label") != "0").head(attacks)]
    with pytest.raises(NothingToTrainOn, match=f"got {normal} and {attacks} "):
        KIND.fit(parts, rows=normal + attacks)


def test_it_fits_rows_that_are_all_alike() -> None:
    alike = pl.concat([make_connections(2_000).head(1)] * 700).with_columns(
        label=pl.Series(["0"] * 600 + ["worm"] * 100), log_id=pl.int_range(700, dtype=pl.Int64)
    )
    model = KIND.fit([alike], rows=700)
    assert np.isfinite(model.raw_scores(alike)).all()
    assert model.predict(alike)["severity"].null_count() == 0


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), float("-inf"), -3.0])
@pytest.mark.parametrize("column", ["src_bytes", "serror_rate", "count"])
def test_missing_and_impossible_numbers_take_the_median_of_normal_ones(
    threat: Model, column: str, odd: float | None
) -> None:
    rows = make_connections(200, seed=4)
    encoder = threat._encoder  # type: ignore[attr-defined]
    median = float(encoder.fills[NUMBERS.index(column)])
    place = pl.int_range(pl.len()) % 5 == 0
    broken = rows.with_columns(pl.when(place).then(odd).otherwise(column).alias(column))
    filled = rows.with_columns(pl.when(place).then(median).otherwise(column).alias(column))
    assert threat.predict(broken).drop("explanation").equals(threat.predict(filled).drop("explanation"))


@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("value", [None, "", "never seen before", '"},{"a":"', "\x00\x1b[31m", "😀" * 500])
def test_unknown_and_hostile_words_are_fine(threat: Model, column: str, value: str | None) -> None:
    rows = make_connections(300, **{column: value})
    prediction = threat.with_threshold(0.01).predict(rows)
    assert prediction["raw_score"].is_finite().all()
    assert prediction["explanation"].drop_nulls().len() > 0
    for text in prediction["explanation"].drop_nulls():
        assert len(text.encode()) < 1_000
        assert text.isprintable()
        json.loads(text)


def test_an_unknown_service_counts_as_rarer_than_any(threat: Model) -> None:
    column = FEATURES.index("service_frequency_log")
    seen = threat.features(make_connections(2_000))[:, column]
    unknown = threat.features(make_connections(10, service="gopher9"))[:, column]
    assert unknown.max() <= seen.min()


def test_extreme_numbers_are_fine(threat: Model) -> None:
    rows = make_connections(4, src_bytes=[1e308, 5e-324, 0.0, 1e12], count=[1e308] * 4, dst_host_same_srv_rate=1e308)
    assert np.isfinite(threat.features(rows)).all()
    assert threat.predict(rows).height == 4


def test_columns_that_are_missing_or_of_another_type_are_named(threat: Model) -> None:
    rows = make_connections(50)
    with pytest.raises(BadInput, match="columns src_bytes, flag, which are missing"):
        threat.predict(rows.drop("src_bytes", "flag"))
    with pytest.raises(BadInput, match="numbers in the columns count, serror_rate"):
        threat.predict(rows.with_columns(count=pl.lit("many"), serror_rate=pl.lit("0.5")))
    with pytest.raises(BadInput, match="text in the columns service"):
        threat.predict(rows.with_columns(service=pl.lit(80)))


def test_what_is_kept_of_a_long_stream_is_bounded_and_does_not_depend_on_its_cuts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mllib.detectors._connection_sample.MAX_NORMAL", 1_000)
    monkeypatch.setattr("mllib.detectors._connection_sample.MAX_ATTACKS", 200)
    rows = make_connections(6_000)
    names = rows.with_columns(
        label=pl.when(pl.col("label") == "0").then("label").otherwise(pl.format("a{}", pl.col("log_id") % 300))
    )
    kept = []
    for chunks in ([names], in_chunks(names, 7, 1_500, 400)):
        sample = ConnectionSample()
        for chunk in chunks:
            sample.add(chunk)
        measured, kinds = sample.collect()
        assert (kinds == "").sum() == 1_000
        assert 0 < (kinds != "").sum() <= 200
        kept.append((measured.numbers.tobytes(), kinds.tolist()))
    assert kept[0] == kept[1]


def test_the_steps_in_the_trees_add_up_to_the_score(threat: Model) -> None:
    trees = threat._trees  # type: ignore[attr-defined]
    features = threat.features(make_connections(500, seed=11))
    base = trees.arrays["value"][trees.arrays["offsets"][:-1], 0].astype(np.float64).mean()
    added = trees.contributions(features).sum(axis=1)
    assert base + added == pytest.approx(trees.scores(features)[:, 0], abs=1e-9)
    assert trees.contributions(features[7:8])[0].tolist() == trees.contributions(features)[7].tolist()


def test_flat_trees_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import RandomForestClassifier

    draw = np.random.default_rng(0)
    rows = draw.normal(size=(3_000, 6)).astype(np.float32)
    target = (rows[:, 0] * rows[:, 1] > 0.3).astype(np.int64)
    fitted_forest = RandomForestClassifier(20, max_depth=8, random_state=0).fit(rows, target)
    trees = from_sklearn(fitted_forest, outputs=[1], n_features=6)
    assert trees.scores(rows)[:, 0] == pytest.approx(fitted_forest.predict_proba(rows)[:, 1], abs=1e-6)
    looping = {**trees.arrays, "left": np.where(trees.arrays["left"] < 0, -1, 0).astype(np.int32)}
    with pytest.raises(BadArtifact, match="out of range"):
        ClassTrees(looping, n_features=6)
