"""An offline evaluation of sessions: which labels training is shown, and what is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllib.errors import BadInput
from mllib.jobs.evaluating_sessions import evaluate_session_files, evaluate_sessions
from tests.session_factories import END, frame, lines, ordinary


def judged(n: int = 200) -> pl.DataFrame:
    """Lines with verdicts; of every 40 sessions one lacks its check."""
    made = ordinary(n)
    bad = {f"job-{number}" for number in range(0, n, 40)}
    rows = frame(*(session if session[0][0] not in bad else [*session[:3], session[-1]] for session in made))
    return rows.with_columns(label=pl.col("trace_id").is_in(list(bad)))


@pytest.mark.parametrize(
    ("labels", "mode", "shown"),
    [("all", "labelled", 200), ("none", "unlabelled", 0), ("normal", "normal", 195), (0.5, "labelled", 100)],
)
def test_an_evaluation_shows_training_the_labels_it_is_told_to(labels: str | float, mode: str, shown: int) -> None:
    found = evaluate_sessions(judged(), judged(), labels=labels, observed_until=END)
    assert (found.mode, found.labelled) == (mode, shown)
    assert (found.metrics.rows, found.metrics.positives, found.metrics.f1) == (200, 5, 1.0)
    assert found.rows.columns == ["trace_id", "score", "is_anomaly", "open", "label"]


def test_an_evaluation_measures_only_what_has_a_label() -> None:
    test = judged().with_columns(label=pl.when(pl.col("trace_id") != "job-0").then(pl.col("label")))
    found = evaluate_sessions(judged(), test, labels="none")
    assert (found.rows.height, found.metrics.rows, found.metrics.positives) == (200, 199, 4)
    as_text = test.with_columns(label=pl.when(pl.col("label")).then(pl.lit("disk_full")).otherwise(pl.lit("0")))
    assert evaluate_sessions(judged(), as_text, labels="none").metrics.rows == 200


@pytest.mark.parametrize("labels", ["some", 0.0, 1.0, -1, "nan"])
def test_labels_that_mean_nothing_are_refused(labels: str | float) -> None:
    with pytest.raises(BadInput, match="Labels are all, none, normal, or a share"):
        evaluate_sessions(judged(), judged(), labels=labels)


def test_an_evaluation_needs_labels_of_a_known_kind() -> None:
    with pytest.raises(BadInput, match="label is missing"):
        evaluate_sessions(judged().drop("label"), judged())
    with pytest.raises(BadInput, match="label holds Float64"):
        evaluate_sessions(judged().with_columns(label=0.5), judged())


def written(folder: Path, n: int = 200) -> tuple[Path, Path]:
    """A log file without labels, and the verdicts on its sessions."""
    log, verdicts = folder / "jobs.jsonl", folder / "verdicts.csv"
    rows = judged(n)
    log.write_text(
        "".join(
            json.dumps({"ts": row["ts"].isoformat(), "message": row["message"], "trace_id": row["trace_id"]}) + "\n"
            for row in rows.iter_rows(named=True)
        )
    )
    told = rows.group_by("trace_id", maintain_order=True).agg(pl.col("label").any())
    lines = [f"{name},{'Anomaly' if bad else 'Normal'}\n" for name, bad in told.iter_rows()]
    verdicts.write_text("JobId,Label\n" + "".join(lines))
    return log, verdicts


def test_files_of_lines_are_cut_by_where_their_sessions_begin(tmp_path: Path) -> None:
    log, verdicts = written(tmp_path)
    found = evaluate_session_files([log], labels=verdicts, shown="normal", seeds=(1, 2))
    assert found["figure"] == 1.0
    [first, second] = found["seeds"]
    assert first["metrics"] == second["metrics"]
    assert (first["trained"], first["metrics"]["rows"]) == (136, 60)  # of 140, the 4 anomalies are not learned from
    assert first["metrics"]["positives"] == 1
    assert found["files"][0]["rows"] == judged().height


def test_other_files_may_be_measured_on(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    log, verdicts = written(tmp_path)
    other, _ = written(tmp_path / "b", 120)
    found = evaluate_session_files([log], test=[other], labels=verdicts, shown="none")
    assert found["seeds"][0]["metrics"]["rows"] == 120
    assert found["figure"] == 1.0


def test_files_that_cannot_be_measured_say_why(tmp_path: Path) -> None:
    log, verdicts = written(tmp_path)
    with pytest.raises(BadInput, match="Give labels in the files"):
        evaluate_session_files([log], shown="none")
    verdicts.write_text("job-1\n")
    with pytest.raises(BadInput, match="needs a header"):
        evaluate_session_files([log], labels=verdicts)
    with pytest.raises(BadInput, match="cannot be read"):
        evaluate_session_files([log], labels=tmp_path)
    log.write_text('{"ts": "2026-01-01T00:00:00Z", "message": "no session"}\n')
    with pytest.raises(BadInput, match="too few lines with a trace_id"):
        evaluate_session_files([log], shown="none")


def test_the_same_seed_gives_the_same_model() -> None:
    first, second = (evaluate_sessions(judged(), judged(), labels=0.5, seed=3).rows for _ in range(2))
    assert first.equals(second)


def test_where_sessions_all_differ_at_most_a_tenth_are_anomalies() -> None:
    random = np.random.default_rng(0)
    words = [f"step {chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]
    differing = frame(
        *(
            lines(f"s-{n}", steps=[words[place] for place in random.integers(0, 300, 12)], removed=False)
            for n in range(400)
        )
    )
    found = evaluate_sessions(differing.with_columns(label=False), differing.with_columns(label=False), labels="none")
    assert 0 < found.metrics.alarms <= 40
