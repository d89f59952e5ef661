"""One score per session: what is missing, too many, unseen or out of order; and what is only not over yet."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mllib import artifacts, sessions
from mllib.detectors.base import ModelState
from mllib.errors import BadArtifact, BadInput, NothingToTrainOn
from mllib.sessions import SessionModel, training
from mllib.sessions.explanation import explain
from tests.factories import START
from tests.session_factories import END, STEPS, frame, lines, ordinary

BROKEN = {
    "missing": lines("missing", steps=STEPS[:3]),
    "too few": lines("too few", steps=["job accepted", "copy stored", "sum checked"]),
    "too many": lines("too many", steps=["job accepted", *["copy stored"] * 9, "sum checked"]),
    "unseen": lines("unseen", steps=[*STEPS, "disk on fire"]),
}
ALL = frame(*BROKEN.values(), *ordinary(60, name="later"))


def gather(rows: pl.DataFrame) -> sessions.Sessions:
    return sessions.gather(rows, observed_until=END)


@pytest.fixture(scope="module")
def models() -> dict[str, SessionModel]:
    """One of each way to train: unlabelled, only normal ones, and some of both."""
    usual = ordinary()
    odd = [
        lines(f"odd-{n}", steps=[*STEPS, "sum wrong"], at=START + timedelta(minutes=n, seconds=30)) for n in range(4)
    ]
    some = {f"job-{n}": False for n in range(60)} | {"odd-0": True, "odd-1": True}
    return {
        "unlabelled": sessions.fit(gather(frame(*usual, *odd))),
        "normal": sessions.fit(gather(frame(*usual)), labels={session[0][0]: False for session in usual}),
        "labelled": sessions.fit(gather(frame(*usual, *odd)), labels=some),
    }


MODES = ("unlabelled", "normal", "labelled")


@pytest.mark.parametrize("mode", MODES)
def test_what_deviates_is_an_anomaly_and_what_does_not_is_none(models: dict[str, SessionModel], mode: str) -> None:
    assert models[mode].mode == mode
    asked = gather(ALL)
    flagged = asked.names.filter(pl.Series(models[mode].scores(asked) >= 0.6))
    assert set(flagged) == set(BROKEN)


@pytest.mark.parametrize("mode", MODES)
def test_a_score_does_not_depend_on_the_sessions_around(models: dict[str, SessionModel], mode: str) -> None:
    asked = gather(ALL)
    whole = models[mode].scores(asked)
    alone = [models[mode].scores(gather(ALL.filter(pl.col("trace_id") == name)))[0] for name in asked.names]
    assert alone == whole.tolist()
    assert models[mode].scores(gather(ALL[:0])).shape == (0,)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_survives_being_stored(models: dict[str, SessionModel], mode: str) -> None:
    data = artifacts.dumps(models[mode].state())
    again = SessionModel.load(artifacts.loads(data, artifacts.digest(data)))
    assert again.scores(gather(ALL)).tolist() == models[mode].scores(gather(ALL)).tolist()
    assert artifacts.dumps(again.state()) == data


@pytest.mark.parametrize("name", sorted(set(BROKEN)))
def test_an_explanation_names_what_is_wrong_first(models: dict[str, SessionModel], name: str) -> None:
    asked = gather(ALL)
    told = json.loads(explain(models["unlabelled"], asked, np.array([asked.names.to_list().index(name)]))[0])
    first = told["features"][0]
    expected = {
        "missing": ("sum checked", "missing", 0, [1, 1]),
        "too few": ("copy stored", "too few", 1, [2, 2]),
        "too many": ("copy stored", "too many", 9, [2, 2]),
        "unseen": ("disk on fire", "unseen", 1, [0, 0]),
    }
    assert (first["name"], first["kind"], first["value"], first["normal"]) == expected[name]
    assert 0 < sum(feature["share"] for feature in told["features"]) <= 1.001
    assert told["look_at"]
    if name in ("too few", "too many"):
        assert told["normal_with"] == {"name": first["name"], "value": first["normal"][0]}


def test_an_unusual_order_ranks_higher_and_is_explained(models: dict[str, SessionModel]) -> None:
    asked = gather(frame(lines("turned", steps=STEPS[::-1]), lines("straight")))
    turned, straight = models["unlabelled"].scores(asked)
    assert turned > straight
    told = json.loads(explain(models["unlabelled"], asked, np.array([0]))[0])
    assert told["features"][0]["kind"] == "out of order"
    assert told["features"][0]["value"] == ["<start>", "sum checked"]


def test_an_explanation_does_not_depend_on_the_sessions_around(models: dict[str, SessionModel]) -> None:
    asked = gather(ALL)
    together = explain(models["unlabelled"], asked, np.arange(len(asked)))
    assert together == [explain(models["unlabelled"], asked, np.array([row]))[0] for row in range(len(asked))]
    assert explain(models["unlabelled"], asked, np.arange(0)) == []


def test_trees_explain_by_what_they_asked(models: dict[str, SessionModel]) -> None:
    asked = gather(frame(lines("odd", steps=[*STEPS, "sum wrong"])))
    first = json.loads(explain(models["labelled"], asked, np.array([0]))[0])["features"][0]
    assert (first["name"], first["kind"]) == ("sum wrong", "too many")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_still_to_come_is_not_missing(models: dict[str, SessionModel], mode: str) -> None:
    waiting = frame(lines("waiting", removed=False))
    early = sessions.gather(waiting, observed_until=START + timedelta(minutes=30))
    late = sessions.gather(waiting, observed_until=START + timedelta(hours=3))
    assert models[mode].is_open(early).tolist() == [True]
    assert models[mode].is_open(late).tolist() == [False]
    assert models[mode].scores(early)[0] < 0.6 <= models[mode].scores(late)[0]


@pytest.mark.parametrize("mode", MODES)
def test_an_open_session_is_judged_by_what_it_lacks(models: dict[str, SessionModel], mode: str) -> None:
    rows = frame(
        lines("lacks", steps=STEPS[:3], removed=False),
        lines("exceeds", steps=["job accepted", *["copy stored"] * 9, "sum checked"], removed=False),
        lines("plain", removed=False),
    )
    early = sessions.gather(rows, observed_until=START + timedelta(minutes=30))
    lacks, exceeds, plain = models[mode].scores(early)
    assert plain < exceeds < 0.6 <= lacks
    late = sessions.gather(rows, observed_until=START + timedelta(hours=3))
    assert (models[mode].scores(late) >= 0.6).all()


def test_sessions_that_are_not_over_do_not_blur_what_is_usual() -> None:
    over = ordinary(150)
    going_on = [lines(f"open-{n}", at=END - timedelta(minutes=n), removed=False) for n in range(1, 50)]
    model = sessions.fit(gather(frame(*over, *going_on)))
    never_removed = gather(frame(lines("never", removed=False)))
    assert model.scores(never_removed)[0] >= 0.6


def test_a_template_that_only_many_have_keeps_no_session_open(models: dict[str, SessionModel]) -> None:
    asked = gather(frame(lines("without a read")))
    assert models["unlabelled"].is_open(asked).tolist() == [False]


def test_lines_without_a_session_and_without_a_message() -> None:
    rows = frame(lines("a", removed=False)).with_columns(
        trace_id=pl.Series(["a", None, "a", "a"]), message=pl.Series(["one", "two", None, "one"])
    )
    found = sessions.gather(rows)
    assert (found.names.to_list(), found.lines.tolist(), found.lasted.tolist()) == (["a"], [3], [3.0])
    assert found.templates.to_list() == ["one", ""]
    assert found.observed.tolist() == [3.0]


def test_templates_may_come_ready_made() -> None:
    rows = frame(*ordinary(3))
    ready = rows.rename({"message": "template"})
    assert sessions.gather(ready).template.tolist() == sessions.gather(rows).template.tolist()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: rows.drop("trace_id"), "trace_id is missing"),
        (lambda rows: rows.drop("message"), "message is missing"),
        (lambda rows: rows.with_columns(trace_id=1), "trace_id holds Int32, but sessions need String"),
        (lambda rows: rows.with_columns(ts=pl.lit("now")), "ts holds String, but sessions need Datetime"),
        (lambda rows: rows.with_columns(message=1.5), "message holds Float64"),
        (lambda rows: rows.with_columns(ts=pl.lit(None, dtype=pl.Datetime("us", "UTC"))), "have no time"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(change, problem) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match=problem):
        sessions.gather(change(frame(lines("a"))))


def test_columns_beyond_those_do_not_matter(models: dict[str, SessionModel]) -> None:
    more = ALL.with_columns(level=pl.lit("INFO"), n=pl.lit(float("nan")))
    assert models["normal"].scores(gather(more)).tolist() == models["normal"].scores(gather(ALL)).tolist()


def test_too_few_sessions_are_not_learned_from() -> None:
    with pytest.raises(NothingToTrainOn, match="There are 49 sessions to learn from, and at least 50"):
        sessions.fit(gather(frame(*ordinary(49))))
    with pytest.raises(NothingToTrainOn, match="There are 0 sessions"):
        sessions.fit(gather(ALL[:0]))


def test_a_few_normal_labels_are_as_good_as_none() -> None:
    model = sessions.fit(gather(frame(*ordinary())), labels={"job-1": False, "of another log": True})
    assert model.mode == "unlabelled"


def test_of_very_many_sessions_a_sample_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_SESSIONS", 80)
    asked = gather(frame(*ordinary(200)))
    labels = {f"job-{n}": n == 199 for n in range(150, 200)}
    model = sessions.fit(asked, labels=labels)
    assert (model.mode, model.sessions) == ("labelled", 80)
    assert sessions.fit(asked).sessions == 80
    assert model.scores(gather(frame(BROKEN["unseen"])))[0] >= 0.6


def test_taken_sessions_are_those_of_the_whole() -> None:
    rows = frame(lines("a"), lines("b", steps=STEPS[:2]), lines("c", at=START + timedelta(minutes=1)))
    some = gather(rows).take(np.array([1, 2]))
    assert (some.names.to_list(), some.lines.tolist()) == (["b", "c"], [3, 5])
    assert some.started.to_list() == gather(rows).started.to_list()[1:]
    assert some.templates.gather(some.template).to_list() == [*STEPS[:2], "job removed", *STEPS, "job removed"]


def state_with(model: SessionModel, **changes: object) -> ModelState:
    state = model.state()
    header = {**state.header, **{name: value for name, value in changes.items() if name in state.header}}
    arrays = {**state.arrays, **{name: value for name, value in changes.items() if name in state.arrays}}
    return ModelState(header=header, arrays=arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"detector": "log_light"}, "header"),
        ({"mode": "guess"}, "header"),
        ({"share": 1.5}, "header"),
        ({"templates": ["one"]}, "shape"),
        ({"center": np.array([np.nan])}, "finite"),
        ({"variance": np.zeros(6)}, "variance"),
        ({"pairs": np.zeros(3, dtype=np.int64)}, "shape"),
        ({"mode": "labelled"}, "trees"),
    ],
)
def test_a_damaged_model_is_refused(models: dict[str, SessionModel], changes: dict[str, object], problem: str) -> None:
    with pytest.raises(BadArtifact, match=problem):
        SessionModel.load(state_with(models["unlabelled"], **changes))
