"""What is log_severity's own: level words are masked, severity is of level and anomaly, two kinds of scores."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from mllib.detectors import detector
from mllib.detectors._wording import wordings
from mllib.detectors.log_severity import LEVELS, LogSeverityModel
from mllib.errors import NothingToTrainOn
from mllib.types import Severity
from tests.factories import in_chunks, make_logs

KIND = detector("log_severity")

SAID = {
    "DEBUG": ("entering handler with index {n}", "callback value {n} set"),
    "INFO": ("request {n} completed", "user {n} signed in", "worker {n} started"),
    "WARN": ("slow query took {n} ms", "retrying request {n}"),
    "ERROR": ("payment {n} refused", "could not store order {n}"),
    "FATAL": ("out of memory, aborting after {n}", "data file {n} corrupted"),
}
ODD = "replica {n} diverged from its primary"


def said(n: int = 2_000, *, odd: int = 0, labelled: bool = False) -> pl.DataFrame:
    """Lines whose wording gives their level; every ``odd``-th is an ERROR in words of its own, labelled as anomaly."""
    choices = [(level, text) for level, texts in SAID.items() for text in texts]
    picked = [("ERROR", ODD) if odd and row % odd == odd - 1 else choices[row % len(choices)] for row in range(n)]
    frame = make_logs(
        n, level=[level for level, _ in picked], message=[t.format(n=i) for i, (_, t) in enumerate(picked)]
    )
    return frame.with_columns(label=pl.Series(["1" if t == ODD else "0" for _, t in picked])) if labelled else frame


@pytest.fixture(scope="module")
def model() -> LogSeverityModel:
    """Without labels."""
    return KIND.fit([said(odd=100)], rows=2_000)


@pytest.fixture(scope="module")
def labelled_model() -> LogSeverityModel:
    return KIND.fit([said(odd=50, labelled=True)], rows=2_000)


def classes(model: LogSeverityModel, *messages: str | None) -> list[str]:
    return model.predict(make_logs(len(messages), message=list(messages), level=None))["class"].to_list()


def text_of(message: str) -> str:
    return wordings(pl.Series([message]))[1].texts[0]


@pytest.mark.parametrize("word", ["error", "Error", "ERROR", "eRRoR", "WARNING", "info", "Fatal", "SEVERE", "trace"])
@pytest.mark.parametrize(
    "form",
    ["{}: disk full", "[{}] disk full", "<{}> disk full", "level={} disk full", "disk full ({})", "{}_disk full"],
)
def test_a_level_word_is_masked_wherever_it_stands(word: str, form: str) -> None:
    assert text_of(form.format(word)).removeprefix("level ") == "disk full"


@pytest.mark.parametrize("word", ["config", "LOG", "Fine", "finest", "PANIC"])
def test_a_level_that_is_a_common_word_is_masked_only_where_a_level_stands(word: str) -> None:
    for form in ("[{}] disk full", "severity={} disk full"):
        assert word.lower() not in text_of(form.format(word))
    assert text_of(f"disk full {word}") == f"disk full {word.lower()}"


def test_words_that_only_hold_a_level_word_stay() -> None:
    assert text_of("NullPointerErrors informed warningly") == "nullpointererrors informed warningly"
    assert text_of("datenträger überfüllt: диск 7") == "datenträger überfüllt диск"


def test_a_level_written_in_the_message_does_not_change_what_is_said_of_it(model: LogSeverityModel) -> None:
    plain = model.predict(make_logs(10, message="payment 7 refused"))
    for word in ("DEBUG: ", "[INFO] ", "fatal ", "<Warning> "):
        assert model.predict(make_logs(10, message=f"{word}payment 7 refused")).equals(plain)
    told = KIND.fit([said().with_columns(message=pl.format("{}: tick", "level"))], rows=2_000)
    assert len({*classes(told, *(f"{level}: tick" for level in LEVELS))}) == 1


def test_levels_are_learned_from_the_wording(model: LogSeverityModel) -> None:
    expected = [level for level, texts in SAID.items() for _ in texts]
    assert classes(model, *(text.format(n=5) for texts in SAID.values() for text in texts)) == expected
    assert classes(model, "mail gateway refused, giving up: corrupted")[0] in ("WARN", "ERROR", "FATAL")


def test_the_level_of_the_line_is_no_feature(model: LogSeverityModel) -> None:
    lines = said(200)
    for level in (None, "FATAL", "nonsense"):
        assert model.predict(lines.with_columns(level=pl.lit(level, dtype=pl.String))).equals(model.predict(lines))


def test_levels_have_their_names_whatever_their_dialect() -> None:
    levels = pl.Series("level", ["warning", "E", " crit ", "SEVERE", "notice", "V", None, "", "loud"])
    expected = ["WARN", "ERROR", "FATAL", "ERROR", "INFO", "DEBUG", None, None, None]
    assert KIND.true_classes(levels).to_list() == expected
    assert KIND.true_classes(levels.clear()).to_list() == []


@pytest.mark.parametrize("level", [None, "", "loud"])
def test_lines_without_a_known_level_teach_no_level_and_are_refused_alone(level: str | None) -> None:
    with pytest.raises(NothingToTrainOn, match=r"100 rows with a level .* got 0 "):
        KIND.fit([make_logs(500, level=level)], rows=500)
    more = pl.concat([said(500), make_logs(500, level=level, message="who knows", log_id=np.arange(501, 1001))])
    assert KIND.fit([more], rows=1_000).parameters["levelled_rows"] == 500


def test_severity_is_of_the_level_and_the_anomaly(model: LogSeverityModel) -> None:
    lines = said(500, odd=10)
    table = {
        "FATAL": (Severity.HIGH, Severity.CRITICAL),
        "ERROR": (Severity.HIGH, Severity.CRITICAL),
        "WARN": (Severity.MEDIUM, Severity.HIGH),
        "INFO": (Severity.LOW, Severity.MEDIUM),
        "DEBUG": (Severity.LOW, Severity.MEDIUM),
    }
    for moved, flagged in ((model.with_threshold(1e-6), 500), (model.with_threshold(1 - 1e-6), 0)):
        found = moved.predict(lines)
        assert found["is_anomaly"].sum() == flagged
        for level, anomaly, severity in found.select("class", "is_anomaly", "severity").iter_rows():
            assert severity == table[level][anomaly]


def test_labels_say_what_an_anomaly_is(labelled_model: LogSeverityModel) -> None:
    assert labelled_model.threshold == 0.5
    assert labelled_model.parameters["score"] == "labels"
    lines = said(1_000, odd=20, labelled=True)
    found = labelled_model.predict(lines.drop("label"))
    assert found["is_anomaly"].to_list() == (lines["label"] == "1").to_list()
    # Many, and so not rare: only the labels tell.
    assert (lines["label"] == "1").sum() == 50
    odd = json.loads(found["explanation"].drop_nulls()[0])
    words = [feature["value"] for feature in odd["features"] if feature["name"] == "words"]
    assert set(" ".join(words).split()) <= {"replica", "diverged", "from", "its", "primary"}
    assert words
    assert odd["level"]["class"] == "ERROR"
    assert odd["level"]["features"]
    assert all(0 < feature["share"] <= 1 for feature in odd["level"]["features"])


def test_verdicts_on_few_rows_teach_nothing() -> None:
    lines = said(2_000, odd=100, labelled=True)
    assert (lines["label"] == "1").sum() == 20
    assert KIND.fit([lines], rows=2_000).parameters["score"] == "rarity"
    assert KIND.fit([lines.with_columns(label=pl.lit("1"))], rows=2_000).parameters["score"] == "rarity"


def test_without_labels_rare_wording_is_anomalous(model: LogSeverityModel) -> None:
    assert model.parameters["score"] == "rarity"
    found = model.predict(make_logs(3, message=["request 1 completed", ODD.format(n=1), "quite unheard things"]))
    usual, rare, never = found["raw_score"].to_list()
    assert usual < rare < never == 1.0
    assert found["is_anomaly"].to_list() == [False, True, True]
    explained = json.loads(found["explanation"][1])
    assert all(feature["seen"] == 0.01 for feature in explained["features"])
    assert json.loads(found["explanation"][2])["features"][0]["seen"] == 0


def test_what_a_line_would_be_normal_without_is_so(model: LogSeverityModel) -> None:
    line = make_logs(1, message="request 7 completed gloriously")
    found = model.with_threshold(float(model.raw_scores(line)[0]) - 0.01)
    explained = json.loads(found.predict(line)["explanation"][0])
    assert "gloriously" in explained["normal_without"]
    assert not found.predict(make_logs(1, message="request 7 completed"))["is_anomaly"][0]


@pytest.mark.parametrize("message", [None, "", "   ", "4711", "0x1f 10.0.0.1", "ERROR", "[WARN]:"])
def test_a_message_without_words_is_usual(message: str | None, model: LogSeverityModel) -> None:
    found = model.predict(make_logs(1, message=message))
    assert found["class"][0] in LEVELS
    assert found["raw_score"][0] == 0
    assert not found["is_anomaly"][0]
    assert 0 < found["confidence"][0] <= 1


def test_only_the_head_of_a_message_of_a_megabyte_counts(model: LogSeverityModel) -> None:
    long = "payment 7 refused " + "out of memory " * 80_000
    found = model.predict(make_logs(1, message=long))
    assert found.equals(model.predict(make_logs(1, message=long[:600])))
    assert not found.equals(model.predict(make_logs(1, message=long[:300])))


def test_many_different_texts_do_not_outgrow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllib.detectors._wording_counts.MAX_GROUPS", 200)
    letters = "abcdefghij"
    words = pl.Series([" ".join(letters[int(digit)] * 3 for digit in f"{row:04}") for row in range(2_000)])
    lines = said(2_000).with_columns(message=words)
    model = KIND.fit(in_chunks(lines, 300), rows=2_000)
    assert 50 < model.parameters["texts"] <= 200
    again = KIND.fit(in_chunks(lines, 7, 900, 50), rows=2_000)
    assert again.raw_scores(lines).tolist() == model.raw_scores(lines).tolist()
