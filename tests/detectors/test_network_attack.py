"""What is network_attack's own: classes, labels of all sorts, and flows as they should not be."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mllib.detectors import detector
from mllib.detectors._class_walk import compiled_steps, compiled_sums, steps_in_numpy, sums_in_numpy
from mllib.detectors._flow_features import FEATURES, FIGURES
from mllib.detectors.base import ClassModel, ModelState
from mllib.detectors.network_attack import BENIGN, MAX_CLASSES
from mllib.errors import BadArtifact, BadInput, NothingToTrainOn
from mllib.sources import CICFLOWMETER_FEATURES
from tests.detectors.conftest import ROWS, fitted
from tests.detectors.flows import make_flows

KIND = detector("network_attack")


@pytest.fixture(scope="module")
def attack() -> ClassModel:
    model = fitted("network_attack")
    assert isinstance(model, ClassModel)
    return model


def test_it_names_the_attacks_of_later_flows(attack: ClassModel) -> None:
    later = make_flows(4_000, seed=5)
    prediction = attack.predict(later)
    truth = KIND.true_classes(later["label"])
    assert set(truth) == set(attack.classes)
    for name in attack.classes:
        assert (prediction["class"] == name).filter(truth == name).mean() > 0.9
    surer = prediction.filter(prediction["class"] == truth)["confidence"].mean()
    assert surer > prediction.filter(prediction["class"] != truth)["confidence"].mean() + 0.1


def test_the_class_and_what_is_an_anomaly_agree_at_every_threshold(attack: ClassModel) -> None:
    rows = make_flows(2_000, seed=6)
    assert attack.threshold == 0.5
    benign = []
    for threshold in (0.05, 0.5, 0.95):
        prediction = attack.with_threshold(threshold).predict(rows)
        assert (prediction["class"] != BENIGN).to_list() == prediction["is_anomaly"].to_list()
        benign.append((prediction["class"] == BENIGN).sum())
    assert benign[0] < benign[1] < benign[2]


def test_a_severity_says_how_sure_an_attack_is(attack: ClassModel) -> None:
    rows = make_flows(6_000, seed=7)
    alarms = attack.predict(rows).with_columns(rows["label"]).filter("is_anomaly")
    attacks, false = alarms.filter(pl.col("label") != "0"), alarms.filter(pl.col("label") == "0")
    assert (attacks["severity"] >= 3).mean() > 0.7
    assert false["severity"].mean() < attacks["severity"].mean() - 0.5


def test_false_alarms_are_as_many_as_expected(attack: ClassModel) -> None:
    benign = make_flows(9_000, seed=8).filter(pl.col("label") == "0")
    raw = attack.raw_scores(benign)
    assert (raw >= attack.expected_threshold(0.05)).mean() == pytest.approx(0.05, abs=0.03)


def test_what_labels_mean_as_classes() -> None:
    labels = pl.Series(["0", "worm", "1", None, "normal", "BENIGN"])
    assert KIND.true_classes(labels).to_list() == [BENIGN, "worm", None, None, BENIGN, BENIGN]


def test_all_verdicts_that_mean_benign_are_learned_as_one_class() -> None:
    rows = make_flows(ROWS)
    words = pl.Series(["0", "normal", "BENIGN"] * (ROWS // 3))
    model = KIND.fit(
        [rows.with_columns(label=pl.when(pl.col("label") == "0").then(words).otherwise("label"))], rows=ROWS
    )
    assert model.parameters == fitted("network_attack").parameters


def test_rows_that_name_no_class_or_a_single_time_are_not_learned_from() -> None:
    rows = make_flows(ROWS)
    others = make_flows(2_003, seed=9).with_columns(
        log_id=pl.col("log_id") + 10_000,
        ts=pl.col("ts") + timedelta(days=1),
        label=pl.Series([None] * 1_000 + ["1"] * 1_000 + ["once", "never again", "BENIGN "]),
    )
    context = make_flows(500, seed=10, log_id=list(range(-500, 0)), claimed=False)
    model = KIND.fit([context, rows, others], rows=ROWS + 2_003)
    known = fitted("network_attack")
    assert model.classes == known.classes
    assert {**model.parameters, "rows": ROWS} == known.parameters
    probe = make_flows(500, seed=11)
    assert model.predict(probe).equals(known.predict(probe))


def test_the_most_frequent_of_very_many_classes_are_kept() -> None:
    rows = make_flows(3_000)
    number = pl.int_range(pl.len())
    rare = pl.format("rare {}", number % 200)
    many = rows.with_columns(
        label=pl.when(pl.col("label") == "0").then("label").when(number % 2 == 0).then("label").otherwise(rare)
    )
    model = KIND.fit([many], rows=3_000)
    assert len(model.classes) == MAX_CLASSES + 1
    assert {"beacon", "port_scan", "syn_flood"} <= set(model.classes)


@pytest.mark.parametrize(("benign", "attacks"), [(0, 0), (0, 500), (99, 500), (500, 0), (500, 29)])
def test_too_few_of_either_are_refused(benign: int, attacks: int) -> None:
    rows = make_flows(6_000)
    parts = [rows.filter(pl.col("label") == "0").head(benign), rows.filter(pl.col("label") == "beacon")]
    parts[1] = pl.concat([parts[1]] * 5).head(attacks)
    with pytest.raises(NothingToTrainOn, match=f"got {benign} and {attacks} "):
        KIND.fit(parts, rows=benign + attacks)


def test_it_fits_flows_that_are_all_alike() -> None:
    alike = pl.concat([make_flows(2_000).head(1)] * 700).with_columns(
        label=pl.Series(["0"] * 600 + ["worm"] * 100), log_id=pl.int_range(700, dtype=pl.Int64)
    )
    prediction = KIND.fit([alike], rows=700).with_threshold(0.01).predict(alike)
    assert prediction["is_anomaly"].all()
    assert "threshold is very low" in prediction["explanation"][0]


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", ["Flow Bytes/s", "SYN Flag Count", "Bwd IAT Mean"])
def test_missing_and_infinite_numbers_count_as_0(attack: ClassModel, column: str, odd: float | None) -> None:
    rows = make_flows(300, seed=4)
    place = pl.int_range(pl.len()) % 3 == 0
    broken = rows.with_columns(pl.when(place).then(odd).otherwise(column).alias(column))
    zero = rows.with_columns(pl.when(place).then(0.0).otherwise(column).alias(column))
    assert attack.predict(broken).equals(attack.predict(zero))


def test_a_flow_of_which_nothing_is_known_is_scored(attack: ClassModel) -> None:
    nothing = make_flows(5).with_columns(
        *(pl.lit(None, dtype=pl.Null).alias(name) for name in (*CICFLOWMETER_FEATURES, "protocol"))
    )
    assert not attack.features(nothing)[:, : len(FIGURES)].any()
    assert attack.predict(nothing)["class"].is_in(attack.classes).all()


@pytest.mark.parametrize(
    ("written", "number"),
    [("tcp", 6), ("TCP", 6), ("udp", 17), ("icmp", 1), ("58", 58), ("", 0), ("??", 0), ("²", 0), ("9" * 400, 0)],
)
def test_protocols_are_numbers_and_unknown_ones_0(attack: ClassModel, written: str, number: float) -> None:
    features = attack.features(make_flows(3, protocol=written))
    assert features[:, FEATURES.index("protocol")].tolist() == [number] * 3


def test_extreme_numbers_are_fine(attack: ClassModel) -> None:
    extreme = {name: [1e308, -1e308, 5e-324, -1.0] for name in CICFLOWMETER_FEATURES}
    rows = make_flows(4, **extreme)
    assert np.isfinite(attack.features(rows)).all()
    assert attack.predict(rows)["raw_score"].is_finite().all()


def test_columns_that_are_missing_or_of_another_type_are_named_and_further_ones_ignored(attack: ClassModel) -> None:
    rows = make_flows(50)
    with pytest.raises(BadInput, match="columns Flow Duration, Idle Max, which are missing"):
        attack.predict(rows.drop("Flow Duration", "Idle Max"))
    with pytest.raises(BadInput, match="numbers in the columns Flow Duration, Idle Max"):
        attack.predict(rows.with_columns(pl.lit("1.5").alias("Flow Duration"), pl.lit("long").alias("Idle Max")))
    with pytest.raises(BadInput, match="text in the columns protocol"):
        attack.predict(rows.with_columns(protocol=pl.lit(6)))
    integers = rows.with_columns(pl.col("SYN Flag Count").cast(pl.Int32), further=pl.lit("x"))
    assert attack.predict(integers.reverse().reverse()).equals(attack.predict(rows))


def test_neither_addresses_ports_nor_times_make_a_difference(attack: ClassModel) -> None:
    rows = make_flows(300, seed=12)
    elsewhere = rows.with_columns(
        src_ip=pl.lit("203.0.113.9"), dst_ip=pl.lit("::1"), dst_port=pl.lit(31_337, dtype=pl.Int32)
    ).with_columns(ts=pl.col("ts") + timedelta(days=400), log_id=pl.col("log_id") * 7)
    assert attack.predict(elsewhere).drop("log_id", "ts").equals(attack.predict(rows).drop("log_id", "ts"))


def test_an_explanation_says_what_spoke_for_the_class(attack: ClassModel) -> None:
    rows = make_flows(4_000, seed=13).filter(pl.col("label") != "0")
    prediction = attack.predict(rows)
    texts = prediction["explanation"].drop_nulls()
    assert texts.str.len_bytes().max() < 1_000
    rivals = 0
    for said, sure, text in zip(prediction["class"], prediction["confidence"], prediction["explanation"], strict=True):
        if text is None:
            continue
        explanation = json.loads(text)
        for feature in explanation["features"]:
            assert feature.keys() <= {"name", "unit", "normal", "value", "share"}
            assert feature["normal"][0] <= feature["normal"][1]
        if rival := explanation.get("or"):
            rivals += 1
            assert rival["class"] != said
            assert rival["confidence"] <= 1 - sure + 0.006
    assert rivals > 20
    held_open = prediction.filter(pl.col("class") == "slow_headers")["explanation"].to_list()
    assert sum("when its packets came" in text for text in held_open) > len(held_open) / 2


@pytest.mark.parametrize("name", ['"},{"a":"', "\x01\x1b[31m\u202e", "😀" * 500, "<b>" * 99])
def test_hostile_names_of_attacks_stay_values(name: str) -> None:
    rows = make_flows(3_000).with_columns(pl.col("label").replace({"port_scan": name}))
    model = KIND.fit([rows], rows=3_000)
    prediction = model.predict(rows)
    assert name in prediction["class"]
    for text in prediction["explanation"].drop_nulls():
        assert len(text.encode()) < 1_000
        assert text.isprintable()
        json.loads(text)


@pytest.mark.parametrize("classes", [None, [], [BENIGN], ["a", "b"], [BENIGN, "a", "a"], [BENIGN, 3], "BENIGN"])
def test_artifacts_with_other_classes_are_refused(attack: ClassModel, classes: object) -> None:
    state = attack.state()
    with pytest.raises(BadArtifact):
        KIND.load(ModelState(header={**state.header, "classes": classes}, arrays=state.arrays))


def test_the_steps_in_the_trees_add_up_to_the_votes_for_each_class(attack: ClassModel) -> None:
    trees = attack._trees  # type: ignore[attr-defined]
    features = attack.features(make_flows(300, seed=14))
    votes = trees.scores(features)
    assert votes.sum(axis=1) == pytest.approx(1, abs=1e-5)
    base = trees.arrays["value"][trees.arrays["offsets"][:-1]].astype(np.float64).mean(axis=0)
    outputs = np.arange(300) % len(attack.classes)
    steps = trees.contributions(features, outputs)
    assert base[outputs] + steps.sum(axis=1) == pytest.approx(votes[np.arange(300), outputs], abs=1e-9)
    assert trees.contributions(features[7:8], outputs[7:8])[0].tolist() == steps[7].tolist()


def test_both_walks_give_the_same_bits(attack: ClassModel) -> None:
    trees = attack._trees  # type: ignore[attr-defined]
    fast, credited = compiled_sums(), compiled_steps()
    if fast is None or credited is None:
        assert not any(map(shutil.which, ("cc", "gcc", "clang"))), "there is a compiler, and the walk was not built"
        return
    every = attack.features(make_flows(3_000, seed=15))
    outputs = np.arange(3_000) % len(attack.classes)
    for count in (0, 1, 16, 17, 2_048, 3_000):
        rows, chosen = every[:count], outputs[:count]
        assert fast(trees._trees, rows).tobytes() == sums_in_numpy(trees._trees, rows).tobytes()
        slow = steps_in_numpy(trees._trees, rows, chosen)
        assert credited(trees._trees, rows, chosen).tobytes() == slow.tobytes()
        assert trees.contributions(rows, chosen).tobytes() == (slow / 100).tobytes()


def test_rows_of_another_width_are_refused(attack: ClassModel) -> None:
    trees = attack._trees  # type: ignore[attr-defined]
    narrow = attack.features(make_flows(3))[:, :-1]
    for ask in (trees.scores, trees.contributions):
        with pytest.raises(ValueError, match=f"{len(FEATURES)} features are needed"):
            ask(narrow)
