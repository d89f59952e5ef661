"""What every detector must keep, whatever its method. A new detector is tested by being there.

What its explanations must keep is in test_contract_explanations.py.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import mllib.detectors
from mllib import artifacts
from mllib.detectors import describe, detector, names
from mllib.detectors.base import LABELS, ClassModel, Model, ModelState
from mllib.errors import BadArtifact, NothingToTrainOn, UnknownDetector
from mllib.features.stream import with_context
from mllib.sources import CLAIMED_ONLY, source
from mllib.types import Severity
from tests.detectors.conftest import KINDS, ROWS, fitted, outliers_of, rows_to_score, training_rows
from tests.factories import empty_logs, in_chunks, make_frame, make_logs

PREDICTION = {
    "log_id": pl.Int64,
    "ts": pl.Datetime("us", "UTC"),
    "score": pl.Float32,
    "raw_score": pl.Float32,
    "is_anomaly": pl.Boolean,
    "severity": pl.Int16,
    "explanation": pl.String,
}
OF_CLASSES = {"class": pl.String, "confidence": pl.Float32}


def columns(model: Model) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns of its predictions."""
    return {**PREDICTION, **OF_CLASSES} if isinstance(model, ClassModel) else PREDICTION


def predict(model: Model, chunks: list[pl.DataFrame], context: timedelta) -> pl.DataFrame:
    return pl.concat([model.predict(chunk) for chunk in with_context(chunks, context)])


def test_it_says_what_it_is(kind, model):
    assert kind.name in names()
    assert kind.title
    assert kind.summary.endswith(".")
    assert kind.metric in {"f1", "macro_f1"}
    assert (kind.metric == "macro_f1") == isinstance(model, ClassModel)
    assert kind.truth == LABELS or kind.truth in source(kind.source).schema
    assert kind.context >= timedelta(0)
    assert model.algorithm
    assert isinstance(artifacts.dumps(ModelState(header=model.parameters, arrays={})), bytes)


def test_its_docstring_explains_the_method(kind):
    text = describe(kind.name)
    assert ast.get_docstring(ast.parse(Path(sys.modules[type(kind).__module__].__file__).read_text())) == text
    for part in ("works when", "fails when", "higher is more anomalous"):
        assert part in text.replace("\n", " ")


def test_planted_outliers_rank_high(kind):
    training, _ = outliers_of(kind, 3_000)
    rows, planted = outliers_of(kind, 2_000, seed=2)
    model = kind.fit([training], rows=3_000)
    assert roc_auc_score(planted, model.raw_scores(rows)) >= 0.97
    assert model.predict(rows)["is_anomaly"].to_numpy()[planted].mean() >= 0.9


def test_features_are_named_and_numbers(model, rows):
    features = model.features(rows)
    assert features.shape == (rows.height, len(model.feature_names))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert len(set(model.feature_names)) == len(model.feature_names)


def test_prediction_columns(model, rows):
    prediction = model.predict(rows)
    assert dict(prediction.schema) == columns(model)
    assert prediction.drop("explanation").null_count().sum_horizontal().item() == 0
    assert prediction["log_id"].to_list() == rows["log_id"].to_list()
    assert prediction["ts"].to_list() == rows["ts"].to_list()
    raw = model.raw_scores(rows)
    assert raw.dtype == np.float64
    assert prediction["raw_score"].to_list() == raw.astype(np.float32).tolist()
    assert ((prediction["score"] >= 0) & (prediction["score"] <= 1)).all()


def test_a_class_is_one_of_its_classes_and_depends_on_the_features_alone(model, rows):
    if not isinstance(model, ClassModel):
        assert not OF_CLASSES.keys() & set(model.predict(rows).columns)
        return
    codes, confidence = model.classify(model.features(rows))
    prediction = model.predict(rows)
    assert prediction["class"].to_list() == [model.classes[code] for code in codes]
    assert len(set(model.classes)) == len(model.classes) >= 2
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_anomaly_threshold_score_and_severity_agree(model, rows):
    raw = model.raw_scores(rows)
    for threshold in (model.threshold, float(np.median(raw)), float(raw.max())):
        moved = model.with_threshold(threshold)
        prediction = moved.predict(rows)
        flagged = (raw >= threshold).tolist()
        assert moved.threshold == threshold
        assert any(flagged)
        assert prediction["is_anomaly"].to_list() == flagged
        assert (prediction["score"].cast(pl.Float64) >= 0.6).to_list() == flagged
        graded = prediction["severity"].to_numpy()
        assert (graded[flagged] > Severity.NORMAL).all()
        if type(moved).severities is Model.severities:
            assert (graded > Severity.NORMAL).tolist() == flagged
        # Calling fewer rows anomalies makes none of them worse.
        strictest = model.with_threshold(1 - 1e-9).predict(rows)["severity"].to_numpy()
        assert (strictest <= graded).all()
        order = np.argsort(raw, kind="stable")
        assert (np.diff(prediction["score"].to_numpy()[order]) >= 0).all()


def test_a_new_forest_expects_a_tenth(forest_model):
    assert forest_model.threshold == forest_model.expected_threshold(0.1)
    raw = forest_model.raw_scores(make_logs(ROWS))
    for rate, slack in ((0.1, 0.01), (0.02, 0.005)):
        threshold = forest_model.expected_threshold(rate)
        # As many as expected: with the next rows below, which may be many of one score, it would be more.
        assert (raw >= threshold).mean() <= rate + slack
        assert (raw >= raw[raw < threshold].max()).mean() >= rate - slack


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_lies_between_0_and_1(model, threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.with_threshold(threshold)


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None, max_examples=12)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_chunks_do_not_matter(name, sizes):
    model, kind = fitted(name), detector(name)
    rows = rows_to_score(kind, 1_500, seed=3, span_s=1_000)
    assert predict(model, in_chunks(rows, *sizes, 250), kind.context).equals(model.predict(rows))


def test_a_row_with_its_context_scores_as_in_the_batch(kind, model, rows):
    whole = model.predict(rows)
    raw = model.raw_scores(rows)
    for place in range(0, rows.height, 97):
        alone = rows.slice(0, place + 1).with_columns(claimed=pl.int_range(pl.len()) == place)
        alone = alone.filter(pl.col("claimed") | (pl.col("ts") > rows["ts"][place] - kind.context))
        assert model.predict(alone).equals(whole[place])
        assert model.raw_scores(alone)[0] == raw[place]


def test_same_seed_same_scores_and_other_chunks_same_model(kind, rows):
    training = training_rows(kind)
    again = kind.fit(in_chunks(training, 777, 1, 250), rows=ROWS)
    assert artifacts.dumps(again.state()) == artifacts.dumps(fitted(kind.name).state())
    other = kind.fit([training], rows=ROWS, seed=7)
    # One that draws nothing has no seed to tell of.
    assert np.array_equal(other.raw_scores(rows), again.raw_scores(rows)) == ("seed" not in again.parameters)


def test_it_survives_its_artifact(kind, model, rows):
    moved = model.with_threshold(model.expected_threshold(0.03))
    data = artifacts.dumps(moved.state())
    again = kind.load(artifacts.loads(data, artifacts.digest(data)))
    assert again.predict(rows).equals(moved.predict(rows))
    assert (again.feature_names, again.threshold) == (moved.feature_names, moved.threshold)
    assert (again.parameters, again.algorithm) == (moved.parameters, moved.algorithm)
    assert artifacts.dumps(again.state()) == data


def test_states_of_others_and_damaged_ones_are_refused(kind, model):
    state = model.state()
    for header in (
        {**state.header, "detector": "another"},
        {**state.header, "format": 99},
        {"detector": kind.name, "format": state.header["format"]},
    ):
        with pytest.raises(BadArtifact):
            kind.load(ModelState(header=header, arrays=state.arrays))
    for name in state.arrays:
        for arrays in (
            {other: array for other, array in state.arrays.items() if other != name},
            {**state.arrays, name: state.arrays[name][:-1]},
        ):
            with pytest.raises(BadArtifact):
                kind.load(ModelState(header=state.header, arrays=arrays))


def test_its_input_stays_as_it_was(kind, model, rows):
    before = rows.clone()
    features = model.features(rows)
    model.predict(rows)
    assert rows.equals(before)
    assert model.features(rows).tobytes() == features.tobytes()
    training = training_rows(kind)
    kept = training.clone()
    kind.fit([training], rows=ROWS)
    assert training.equals(kept)


def test_missing_values_are_filled_as_declared(log_model):
    # The medians of the training sample stand in for a missing response time and status code.
    logs = make_logs(300, seed=4)
    training = make_logs(ROWS)
    bare = logs.with_columns(response_time_ms=pl.lit(None, dtype=pl.Float64), status_code=pl.lit(None, dtype=pl.Int32))
    features = dict(zip(log_model.feature_names, log_model.features(bare).T, strict=True))
    if "response_time" in features:
        assert np.unique(features["response_time"]) == pytest.approx(training["response_time_ms"].median())
        assert np.unique(features["status_code"]).tolist() == [200]
    assert np.isfinite(log_model.raw_scores(bare)).all()


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan"), -3.0])
def test_impossible_response_times_count_as_missing(log_model, odd):
    logs = make_logs(300, seed=4)
    place = pl.int_range(pl.len()) % 5 == 0
    missing = logs.with_columns(response_time_ms=pl.when(place).then(None).otherwise("response_time_ms"))
    impossible = logs.with_columns(response_time_ms=pl.when(place).then(odd).otherwise("response_time_ms"))
    assert log_model.predict(impossible).equals(log_model.predict(missing))


def test_only_context_and_empty_frames_give_no_prediction(kind, model):
    context = rows_to_score(kind, 50).with_columns(claimed=pl.lit(False))
    dropped = [pl.lit(None, dtype=context.schema[name]).alias(name) for name in CLAIMED_ONLY & set(context.columns)]
    for frame in (context.clear(), context.with_columns(dropped)):
        prediction = model.predict(frame)
        assert prediction.height == 0
        assert dict(prediction.schema) == columns(model)
        assert model.features(frame).shape == (0, len(model.feature_names))


def test_context_rows_are_not_scored_but_count_if_the_detector_says_so(kind, model):
    rows = rows_to_score(kind, 400, span_s=200)
    late = rows.with_columns(claimed=pl.int_range(pl.len()) >= 390)
    assert model.predict(late).equals(model.predict(rows).tail(10))
    assert model.predict(rows.tail(10)).equals(model.predict(late)) == (kind.context == timedelta(0))


@pytest.mark.parametrize("column", ["service", "level", "message"])
@pytest.mark.parametrize("value", [None, "never seen before", ""])
def test_unknown_words_are_fine(log_model, column, value):
    logs = make_logs(200, **{column: value})
    assert np.isfinite(log_model.raw_scores(logs)).all()
    assert log_model.predict(logs).height == 200


def test_extreme_rows_are_fine(log_model):
    moments = pl.Series(["1970-01-01", "2026-03-02", "9999-12-31"]).str.to_datetime("%Y-%m-%d", time_unit="us")
    frame = make_frame(
        log_id=[-(2**63), 0, 2**63 - 1],
        ts=moments.dt.replace_time_zone("UTC"),
        message=["x" * 1_000_000, "\x00", "\uffff"],
        response_time_ms=[1e308, 0.0, 5e-324],
        status_code=[-(2**31), 0, 2**31 - 1],
    )
    assert np.isfinite(log_model.features(frame)).all()
    assert log_model.predict(frame).height == 3


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_too_few_rows_are_refused(log_kind, rows):
    frames = in_chunks(make_logs(rows), 10) if rows else [empty_logs()]
    context = make_logs(500, claimed=False, log_id=np.arange(-500, 0)).with_columns(
        ts=pl.col("ts") - timedelta(hours=1)
    )
    with pytest.raises(NothingToTrainOn, match=f"got {rows} "):
        log_kind.fit([context, *frames], rows=rows)
    with pytest.raises(NothingToTrainOn):
        log_kind.fit([], rows=0)


def test_it_fits_rows_that_are_all_alike(log_kind):
    same = make_logs(300, level="INFO", service="one", message="tick", response_time_ms=None, status_code=None)
    model = log_kind.fit([same], rows=300)
    assert model.predict(same)["is_anomaly"].mean() <= 0.1


def test_secrets_are_in_no_artifact(log_kind):
    leak = "login ok, password=swordfish token wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY mail alice.smith@example.org"
    logs = make_logs(600)
    odd = pl.int_range(pl.len()) % 2 == 0
    logs = logs.with_columns(message=pl.when(odd).then(pl.lit(leak)).otherwise("message"))
    model = log_kind.fit([logs], rows=600)
    data = artifacts.dumps(model.state()).lower()
    assert (b"login" in data) == ("text=login" in model.feature_names)
    for secret in (b"swordfish", b"bpxrficy", b"wjalr", b"alice"):
        assert secret not in data


def test_names_are_listed_without_importing_them():
    program = (
        "import sys, mllib.detectors as d; names = d.names(); text = [d.describe(n) for n in names];"
        "assert all(text), text;"
        "heavy = {'sklearn', 'polars', 'numpy', 'pandas'} & set(sys.modules); assert not heavy, heavy;"
        "print(*names)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert tuple(found.stdout.split()) == names()
    assert "log_anomaly" in names()
    assert not [name for name in names() if name.startswith("_") or name == "base"]


def test_unknown_names_are_refused_with_the_known_ones():
    for ask in (mllib.detectors.detector, mllib.detectors.describe):
        for name in ("nope", "base", "_isolation", "log_anomaly.x", ""):
            with pytest.raises(UnknownDetector, match="log_anomaly"):
                ask(name)
