"""What every detector's explanations must keep. That they do not depend on the batch is in test_contract.py: they are
a column of the predictions.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from mllib.detectors.base import Model, ModelState
from tests.detectors.conftest import outliers_of
from tests.factories import make_logs


def explained(model: Model, logs: pl.DataFrame) -> list[dict[str, Any]]:
    """The explanations of the anomalies of a frame, parsed."""
    return [json.loads(text) for text in model.predict(logs)["explanation"].drop_nulls()]


def test_every_anomaly_is_explained_and_nothing_else(model, rows):
    prediction = model.predict(rows)
    assert prediction["is_anomaly"].any()
    assert prediction["explanation"].is_not_null().to_list() == prediction["is_anomaly"].to_list()
    for explanation in explained(model, rows):
        assert 1 <= len(explanation["features"]) <= 5
        assert explanation["look_at"]
        for feature in explanation["features"]:
            assert feature["share"] > 0
            assert {"value", "words"} & feature.keys()


def test_shares_add_up_to_the_excess_of_every_anomaly(kind, model):
    outliers, _ = outliers_of(kind, 3_000, seed=6)
    found = explained(model, outliers)
    assert len(found) >= 30
    for explanation in found:
        shares = [feature["share"] for feature in explanation["features"]]
        assert sum(shares) + explanation["other"] == pytest.approx(1, abs=5e-4)
        assert shares == sorted(shares, reverse=True)
        assert explanation["excess"] > 0


def test_what_would_be_normal_is_normal_when_scored(forest_kind):
    far = pl.int_range(pl.len()) % 50 == 0
    logs = make_logs(3_000, seed=8, span_s=86_400).with_columns(
        response_time_ms=pl.when(far).then(5_000.0).otherwise("response_time_ms"),
        message=pl.when(far).then(pl.lit("request completed, " + "at last, " * 20)).otherwise("message"),
    )
    model = forest_kind.fit([logs], rows=3_000)
    flagged = model.predict(logs)["is_anomaly"]
    features = model.features(logs)[flagged.to_numpy()]
    told = 0
    for row, text in enumerate(model.explain(logs.filter(flagged), features)):
        change = json.loads(text).get("normal_with")
        if change is not None:
            told += 1
            changed = features[row : row + 1].copy()
            changed[0, model.feature_names.index(change["name"])] = change["value"]
            assert model.score(features[row : row + 1])[0] >= model.threshold > model.score(changed)[0]
    assert told


@pytest.mark.parametrize(
    "hostile", ['"},{"a":"', "'; drop table logs; --", "\x00\x1b[31m\u202e\n", "\\", "😀" * 500, "<b>" * 99]
)
def test_hostile_text_stays_a_value(log_kind, hostile):
    names = pl.Series([hostile] * 20 + ["ok"] * 580)
    levels = names.replace("ok", "INFO")
    logs = make_logs(600, service=names, level=levels)
    rare = pl.int_range(pl.len()) < 20
    logs = logs.with_columns(message=pl.when(rare).then(pl.lit(f"quaint {hostile} {hostile}")).otherwise("message"))
    prediction = log_kind.fit([logs], rows=600).predict(logs)
    texts = prediction["explanation"].drop_nulls().to_list()
    assert texts
    for text in texts:
        assert len(text.encode()) < 1_000
        assert text.isprintable()
        for feature in json.loads(text)["features"]:
            assert feature.keys() <= {"name", "unit", "normal", "seen", "value", "words", "share"}
            if feature["name"] == "service" and feature["value"] != "ok":
                kept = feature["value"].removesuffix("…")
                assert len(kept) <= 40
                assert all(a in (b, "\ufffd") for a, b in zip(kept, hostile, strict=False))


def test_models_from_before_explanations_still_score_and_say_so(forest_kind, forest_model, logs):
    state = forest_model.state()
    old = forest_kind.load(
        ModelState(
            header={name: value for name, value in state.header.items() if name != "explains"},
            arrays={
                name: value for name, value in state.arrays.items() if name not in ("normal_ranges", "shares_seen")
            },
        )
    )
    prediction, now = old.predict(logs), forest_model.predict(logs)
    assert prediction.drop("explanation").equals(now.drop("explanation"))
    assert prediction["explanation"].is_not_null().to_list() == now["is_anomaly"].to_list()
    for explanation in explained(old, logs):
        assert "trained before explanations" in explanation["note"]
    assert forest_kind.load(old.state()).predict(logs).equals(prediction)


def test_a_threshold_below_the_usual_leaves_rows_without_excess_and_says_so(forest_model, logs):
    notes = [explanation.get("note") for explanation in explained(forest_model.with_threshold(1e-6), logs)]
    assert len(notes) == logs.height
    assert {"it is no more unusual than others: the threshold is very low", None} == set(notes)
