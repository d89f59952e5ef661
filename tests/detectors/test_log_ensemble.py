"""What is log_anomaly's own: four members on one scale, their weights, and artifacts from before there were several."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mllib.detectors import detector
from mllib.detectors._ensemble import MEMBERS
from mllib.detectors._forest import fit_forest
from mllib.detectors._log_features import measure, stack, subset
from mllib.detectors._log_groups import groups
from mllib.detectors._surprise import SURPRISES, Surprises
from mllib.detectors.base import ENSEMBLE_FORMAT, FORMAT, Model, ModelState
from mllib.detectors.log_anomaly import OF_FIGURES, OF_TEXT, LogAnomalyModel
from mllib.errors import BadArtifact
from mllib.features.encoders import FEW
from mllib.features.stream import with_context
from mllib.features.text import fit_vectorizer
from tests.detectors.conftest import fitted
from tests.factories import START, make_frame, make_logs

KIND = detector("log_anomaly")


@pytest.fixture(scope="module")
def model() -> Model:
    return fitted("log_anomaly")


def lines(*messages: str, services: list[str] | None = None, step: int = 1) -> pl.DataFrame:
    """Lines a second apart, all of one service unless it is said otherwise."""
    return make_frame(
        log_id=list(range(1, len(messages) + 1)),
        ts=[START + timedelta(seconds=step * place) for place in range(len(messages))],
        service=services or ["a"] * len(messages),
        message=list(messages),
    )


def surprises(counted: pl.DataFrame, asked: pl.DataFrame) -> dict[str, np.ndarray]:
    """The bits of ``asked``, by counts of ``counted``."""
    counts, _ = Surprises.of(measure(counted, np.arange(counted.height)))
    bits = counts.bits(measure(asked, np.arange(asked.height)))
    return dict(zip(SURPRISES, bits.T, strict=True))


def test_surprises_are_shares_backed_off_as_defined() -> None:
    counted = lines("go", "go", "stop", "go", services=["a", "a", "a", "b"])
    found = surprises(counted, lines("go", "stop", "new", services=["a", "b", "a"]))
    often = [3.5 / 5, 1.5 / 5, 0.5 / 5]
    # Service a has 3 lines of 2 kinds, b has one line of one kind.
    served = [(2 + 2 * often[0]) / 5, (0 + often[1]) / 2, (0 + 2 * often[2]) / 5]
    # Without a line before: "go" twice. "go" was followed by "go" and "stop".
    after = [(2 + served[0]) / 3, (0 + served[1]) / 3, (0 + 2 * served[2]) / 4]
    for name, shares in zip(SURPRISES, (often, served, after), strict=False):
        assert found[name] == pytest.approx([-math.log2(share) for share in shares], rel=1e-6), name
    assert found["words_surprise"] == pytest.approx([-math.log2(share) for share in often], rel=1e-6)


def test_the_template_before_is_that_of_the_service_and_within_five_minutes() -> None:
    usual = lines(*["open", "close"] * 200)
    order = "template_order_surprise"
    assert surprises(usual, lines("open", "open"))[order][1] > surprises(usual, lines("open", "close"))[order][1] + 4
    late = surprises(usual, lines("open", "open", step=300))[order]
    assert late[1] == pytest.approx(late[0])
    other = surprises(usual, lines("open", "open", services=["a", "b"]))[order]
    assert other[1] < 5


def test_the_line_before_counts_where_it_is_only_context(model: Model) -> None:
    logs = make_logs(50)
    alone = logs.with_columns(claimed=pl.int_range(pl.len()) == 49)
    column = model.feature_names.index("template_order_surprise")
    assert model.features(alone)[0, column] == model.features(logs)[49, column]
    assert model.features(logs[49:])[0, column] != model.features(logs)[49, column]


def test_many_rows_have_the_features_of_few(model: Model) -> None:
    # Many rows begin as copies of their combination of template, level and service, with missing ones among them.
    logs = make_logs(3 * FEW).with_columns(
        service=pl.when(pl.col("log_id") % 7 == 0).then(None).otherwise(pl.col("service")),
        level=pl.when(pl.col("log_id") % 11 == 0).then(pl.lit("odd")).otherwise(pl.col("level")),
    )
    whole = model.features(logs)
    parts = [model.features(chunk) for chunk in with_context(logs.iter_slices(FEW // 3), KIND.context)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_a_row_is_as_surprising_as_to_a_model_of_the_other_stretches() -> None:
    logs = lines(*["tick"] * 190, *["boom"] * 10)
    _, held_out = Surprises.of(measure(logs, np.arange(200)))
    # The last of 20 stretches is all there is of "boom": to the others it is new.
    assert held_out[190:, 0] == pytest.approx(-math.log2(0.5 / 191))
    assert (held_out[:190, 0] < 0.2).all()


def test_parts_of_a_sample_put_together_are_the_sample() -> None:
    logs = make_logs(300, seed=3)
    whole = measure(logs, np.arange(300))
    parts = [measure(logs, np.arange(begin, begin + 100)) for begin in (0, 100, 200)]
    joined = subset(stack(parts), np.ones(300, dtype=bool))
    for mine, theirs in ((whole.template_of, joined.template_of), (whole.previous_of, joined.previous_of)):
        said = [None if code < 0 else whole.templates[code] for code in mine.tolist()]
        assert said == [None if code < 0 else joined.templates[code] for code in theirs.tolist()]
    assert (whole.previous_of == -1).sum() == 5  # the first line of each service


def test_the_odder_of_two_lines_scores_higher_however_odd_both_are(model: Model) -> None:
    odd = make_logs(400, seed=2)[300:303].with_columns(
        level=pl.lit("FATAL"),
        service=pl.lit("unheard-of"),
        message=pl.Series(["request completed, giving up", "giving up, quorum lost", "quorum lost, disk melted"]),
        response_time_ms=pl.lit(3e6),
    )
    scores = model.raw_scores(odd)
    assert len(set(scores.tolist())) == 3
    assert (scores > model.threshold).all()
    assert (scores < 1).all()


def test_what_the_members_say_adds_up_and_is_told(model: Model) -> None:
    logs = make_logs(3_000, seed=7)
    for variant in (model, *KIND.fit([make_logs(1_000)], rows=1_000).variants()):
        prediction = variant.predict(logs).drop_nulls("explanation")
        assert prediction.height
        weighed = {name for name in MEMBERS if variant.parameters["weights"][name]}
        for text in prediction["explanation"]:
            told = json.loads(text)
            assert told["members"].keys() == weighed
            assert sum(told["members"].values()) == pytest.approx(told["excess"], abs=3e-3)


def test_a_fresh_model_offers_other_weights_and_a_stored_one_does_not(model: Model) -> None:
    with_figures = KIND.fit([make_logs(500)], rows=500).variants()
    text_only = KIND.fit([make_logs(500, response_time_ms=None, status_code=None)], rows=500).variants()
    assert with_figures[0].parameters["weights"]["rarity"] == OF_FIGURES.rarity
    assert text_only[0].parameters["weights"]["rarity"] == OF_TEXT.rarity
    assert len({json.dumps(variant.parameters["weights"]) for variant in with_figures}) == len(with_figures) == 5
    stored = KIND.load(with_figures[1].state())
    assert stored.parameters == with_figures[1].parameters
    assert stored.variants() == (stored,)


def test_a_forest_from_before_the_ensemble_scores_as_it_did() -> None:
    logs = make_logs(1_000)
    measured = measure(logs, np.arange(1_000))
    vectorizer = fit_vectorizer(measured.templates, np.bincount(measured.template_of))
    made = {"fills": (50.0, 200.0), "services": ("search", "mailer"), "vectorizer": vectorizer, "surprises": None}
    parts = groups(made["services"], vectorizer.vocabulary)
    features = LogAnomalyModel(
        fit_forest(np.zeros((200, 78), dtype=np.float32), parts, n_estimators=2, seed=1, rows=200), **made
    ).features(logs)
    assert features.shape == (1_000, 78)
    old = LogAnomalyModel(fit_forest(features, parts, n_estimators=20, seed=1, rows=1_000), **made)
    state = old.state()
    assert (state.header["format"], old.algorithm) == (FORMAT, "isolation forest")
    again = KIND.load(state)
    assert again.predict(logs).equals(old.predict(logs))
    assert "path" in json.loads(again.predict(logs)["explanation"].drop_nulls()[0])
    with pytest.raises(BadArtifact):
        KIND.load(ModelState(header={**state.header, "format": ENSEMBLE_FORMAT}, arrays=state.arrays))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("weights", [0.5, 0.5, 0.5, 0.5]), ("weights", [-1.0, 1.0, 1.0, 0.0]), ("weights", [np.nan, 0.5, 0.5, 0.0]),
        ("units", [0.0, 1.0, 1.0, 1.0]), ("ordinary", [-1.0, 0.0, 0.0, 0.0]), ("usual_bits", [np.inf, 0.0, 0.0, 0.0]),
    ],
)  # fmt: skip
def test_members_that_make_no_sense_are_refused(model: Model, name: str, values: list[float]) -> None:
    state = model.state()
    with pytest.raises(BadArtifact):
        KIND.load(ModelState(header=state.header, arrays={**state.arrays, name: np.array(values)}))


def test_counts_that_make_no_sense_are_refused(model: Model) -> None:
    state = model.state()
    for name, values in (
        ("template_keys", state.arrays["template_keys"][::-1]),
        ("pair_rows", -state.arrays["pair_rows"]),
        ("beyond", np.array([2])),
        ("weight0", np.full_like(state.arrays["weight0"], 1e30)),
    ):
        with pytest.raises(BadArtifact):
            KIND.load(ModelState(header=state.header, arrays={**state.arrays, name: values}))
