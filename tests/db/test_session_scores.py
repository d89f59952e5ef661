"""The sessions of a window: scored by those before it, kept once, shown to analysts and at the shell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput, NothingToTrainOn
from mllib.jobs.sessions import score_sessions
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.factories import add_label, rows
from tests.db.test_cli import answer, complaint, millrace
from tests.factories import START
from tests.session_factories import STEPS, Line, lines, ordinary

LENGTH = timedelta(hours=4)
WINDOW = Window(START + LENGTH, START + 2 * LENGTH)
SCORES = "select trace_id, started_at, lines, open, score, is_anomaly, mode from analytics.sessions order by 2, 1"


def store(engine: Engine, *sessions: Iterable[Line]) -> dict[tuple[str, str], int]:
    """Inserts the lines of some sessions. Returns their ids by session and message."""
    found = {}
    with transaction(engine) as conn:
        for session in sessions:
            for trace_id, ts, message in session:
                binds = {"trace_id": trace_id, "ts": ts, "message": message}
                statement = "insert into millrace.logs (trace_id, ts, message) values (:trace_id, :ts, :message)"
                row = conn.execute(text(statement + " returning log_id"), binds).scalar_one()
                found[trace_id, message] = row
    return found


@pytest.fixture
def jobs(engine: Engine) -> Engine:
    """Four hours to learn from, and four to score with one session that lacks its check."""
    store(
        engine,
        *ordinary(200),
        *ordinary(200, at=WINDOW.start, name="later"),
        lines("broken", at=WINDOW.start + timedelta(minutes=5), steps=STEPS[:3]),
        # Long after the window: it says how far the log reaches.
        lines("afterwards", at=WINDOW.end + LENGTH),
    )
    return engine


def test_the_sessions_that_began_in_the_window_are_scored(jobs: Engine) -> None:
    report = score_sessions(jobs, WINDOW)
    assert (report.mode, report.scored, report.anomalies, report.open) == ("unlabelled", 201, 1, 0)
    assert report.trained_on == Window(START, WINDOW.start)
    assert report.top[0].trace_id == "broken"
    stored = rows(jobs, SCORES)
    assert len(stored) == 201
    assert [row[:4] for row in stored if row[5]] == [("broken", WINDOW.start + timedelta(minutes=5), 4, False)]
    (explanation,) = rows(jobs, "select explanation from analytics.sessions where is_anomaly")[0]
    assert explanation["features"][0]["name"] == "sum checked"
    assert rows(jobs, "select count(*) from analytics.sessions where explanation is null") == [(200,)]


def test_a_second_run_changes_nothing(jobs: Engine) -> None:
    score_sessions(jobs, WINDOW)
    first = rows(jobs, SCORES)
    score_sessions(jobs, WINDOW)
    assert rows(jobs, SCORES) == first


def test_windows_beside_each_other_do_not_replace_one_another(jobs: Engine) -> None:
    score_sessions(jobs, WINDOW)
    half = timedelta(hours=2)
    score_sessions(jobs, Window(WINDOW.start + half, WINDOW.end))
    assert len(rows(jobs, SCORES)) == 201
    assert rows(jobs, "select count(distinct trained_to) from analytics.sessions") == [(2,)]


def test_a_session_belongs_to_the_window_of_its_first_line(jobs: Engine) -> None:
    early = lines("early", at=WINDOW.start - timedelta(minutes=1))
    store(jobs, early)
    score_sessions(jobs, WINDOW)
    assert "early" not in {row[0] for row in rows(jobs, SCORES)}


def test_a_session_whose_start_is_out_of_sight_is_not_learned_from(jobs: Engine) -> None:
    store(jobs, lines("earlier", at=START - timedelta(minutes=30)))
    assert score_sessions(jobs, WINDOW).trained == 200


def test_what_steers_a_terminal_is_not_printed(jobs: Engine, dsn: str) -> None:
    store(jobs, lines("\x1b[31mred", at=WINDOW.start + timedelta(minutes=6), steps=STEPS[:2]))
    window = ("--from", WINDOW.start.isoformat(), "--to", WINDOW.end.isoformat())
    shown = millrace("sessions", *window, dsn=dsn).stdout
    assert "[31mred" in shown
    assert "\x1b" not in shown


def test_sessions_are_followed_beyond_the_end_of_the_window(jobs: Engine) -> None:
    last = lines("last", at=WINDOW.end - timedelta(minutes=1))
    store(jobs, last)
    score_sessions(jobs, WINDOW)
    assert [row[2:4] for row in rows(jobs, SCORES) if row[0] == "last"] == [(5, False)]


def test_a_session_whose_end_is_not_in_yet_is_open_until_it_comes(engine: Engine) -> None:
    store(engine, *ordinary(200), *ordinary(100, at=WINDOW.start, name="later"))
    going_on = lines("going on", at=WINDOW.start + timedelta(hours=3, minutes=50))
    store(engine, going_on[:-1])
    assert score_sessions(engine, WINDOW).open == 1
    store(engine, going_on[-1:])
    assert score_sessions(engine, WINDOW).open == 0
    assert [row[2:6:3] for row in rows(engine, SCORES) if row[0] == "going on"] == [(5, False)]


def test_labels_known_at_the_start_of_the_window_are_learned_from(jobs: Engine) -> None:
    odd = store(
        jobs,
        *(lines(f"odd-{n}", at=START + timedelta(minutes=n), steps=[*STEPS, "sum wrong"]) for n in range(3)),
        lines("odd too", at=WINDOW.start + timedelta(minutes=9), steps=[*STEPS, "sum wrong"]),
    )
    with transaction(jobs) as conn:
        for (name, message), row in odd.items():
            if name != "odd too" and message == "sum wrong":
                number = int(name.removeprefix("odd-"))
                add_label(conn, row, "1", ts=START + timedelta(minutes=number, seconds=4))
        conn.execute(
            text(
                "insert into millrace.labels (subject, ts, row_id, label, origin)"
                " select 'logs', ts, log_id, '0', 'import' from millrace.logs where trace_id like 'job-%'"
            )
        )
    report = score_sessions(jobs, WINDOW)
    assert report.mode == "labelled"
    assert {one.trace_id for one in report.top if one.is_anomaly} == {"broken", "odd too"}


def test_without_sessions_it_says_what_is_missing(engine: Engine) -> None:
    with pytest.raises(NothingToTrainOn, match=r"There are 0 sessions to learn from.*trace_id"):
        score_sessions(engine, WINDOW)
    store(engine, *ordinary(200))
    with pytest.raises(BadInput, match="No session began in"):
        score_sessions(engine, Window(WINDOW.end, WINDOW.end + LENGTH * 3))


def test_at_the_shell(jobs: Engine, dsn: str) -> None:
    window = ("--from", WINDOW.start.isoformat(), "--to", WINDOW.end.isoformat())
    told = answer("sessions", *window, "--top", "2", dsn=dsn)
    assert (told["scored"], told["anomalies"], len(told["top"])) == (201, 1, 2)
    assert json.loads(told["top"][0]["explanation"])["features"][0]["kind"] in ("missing", "out of order")
    shown = millrace("sessions", *window, dsn=dsn).stdout
    assert "201 sessions" in shown
    assert "missing: sum checked: 0  (usual: 1)" in shown
    assert millrace("sessions", "--from", "2026-01-01", dsn=dsn).returncode == 2
    early = ("--from", "2020-01-01", "--to", "2020-01-02")
    assert "sessions to learn from" in complaint("sessions", *early, dsn=dsn)
