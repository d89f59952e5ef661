"""What lies across the border of a slice is not in it, on a real database, and the decision says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine

from mllib.detectors import detector
from mllib.gate.labelled_scores import LabelledScores
from mllib.jobs.judging import judge_candidate
from mllib.jobs.labelled import score_labelled
from mllib.jobs.training import fit_candidate
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.factories import add_label, insert_log
from tests.db.scoring_factories import DETECTOR, fitted_model, make_partitions
from tests.db.training_factories import decisions, version_row
from tests.factories import START

SECOND = timedelta(seconds=1)
WINDOW = Window(START, START + timedelta(hours=10))
"""A slice of ten hours: a burst or an incident may go on in it for half an hour."""


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """A connection to a database with the partition of the slice's day."""
    make_partitions(engine)
    with engine.connect() as conn:
        yield conn


def line(conn: Connection, seconds: float, *, label: str | None = "0", **columns: Any) -> int:
    """A line so many seconds after the border, labelled as normal unless told otherwise."""
    ts = START + seconds * SECOND
    row = insert_log(
        conn, ts, **{"service": "shop", "message": f"unlike any other {chr(97 + int(seconds) % 26)}", **columns}
    )
    if label is not None:
        add_label(conn, row, label, ts=ts)
    return row


def scored(conn: Connection, **how: Any) -> LabelledScores:
    """The slice as the gate sees it, all lines committed."""
    conn.commit()
    return score_labelled(
        conn,
        detector(DETECTOR),
        WINDOW,
        [fitted_model()],
        as_of=WINDOW.end,
        label_delay=timedelta(0),
        snapshot=row_store.current_snapshot(conn),
        **how,
    )


def test_a_trace_across_the_border_is_left_out_however_late_it_goes_on(conn: Connection) -> None:
    line(conn, -20 * 3600, label=None, trace_id="t1")
    line(conn, -25 * 3600, trace_id="too long ago")
    late = line(conn, 9 * 3600, trace_id="t1")
    early = line(conn, 5, trace_id="t1", label="1")
    line(conn, 6, trace_id="t1", label=None)
    stay = [
        line(conn, 7, trace_id="t2", message="apples"),
        line(conn, 8, trace_id="too long ago", message="bananas"),
        line(conn, 9, message="cherries"),
    ]
    rows = scored(conn)
    assert rows.log_ids.tolist() == stay
    assert rows.tied == {"trace": 2, "incident": 0, "burst": 0}
    assert {late, early}.isdisjoint(rows.log_ids.tolist())
    assert rows.scores[0].shape == rows.positive.shape == rows.clusters.shape == (3,)


def test_an_incident_across_the_border_is_left_out_with_the_normal_rows_in_it(conn: Connection) -> None:
    line(conn, -100, label="1", message="disk failed")
    for seconds, label in ((60, "1"), (100, "0"), (350, "1")):
        line(conn, seconds, label=label)
    stay = [
        line(conn, 101, service="other", label="1"),
        line(conn, 351),
        line(conn, 651, label="1"),  # 301 s after the last anomaly
    ]
    rows = scored(conn)
    assert rows.log_ids.tolist() == stay
    assert rows.positive.tolist() == [True, False, True]
    assert rows.tied == {"trace": 0, "incident": 3, "burst": 0}


def test_anomalies_that_never_cease_are_no_incident(conn: Connection) -> None:
    for seconds in range(-290, 3 * 3600, 290):
        line(conn, seconds, label="1")
    rows = scored(conn)
    assert sum(rows.tied.values()) == 0
    assert rows.positive.size == len(range(0, 3 * 3600, 290))
    assert rows.positive.all()


def test_a_burst_across_the_border_is_left_out_and_a_heartbeat_stays(conn: Connection) -> None:
    for seconds in range(-30, 2400, 30):
        line(conn, seconds, message=f"heartbeat {seconds + 1000} ok", service="timer")
    for seconds, label in ((-40, None), (10, "0"), (65, None), (120, "1")):
        line(conn, seconds, label=label, message=f"retry {seconds + 100} of upload failed")
    stay = [
        line(conn, 181, message="retry 281 of upload failed"),  # 61 s after the last one
        line(conn, 11, message="retry 111 of upload failed", service="other"),
        line(conn, 12, message="retried and gave up"),
    ]
    rows = scored(conn)
    assert rows.tied == {"trace": 0, "incident": 0, "burst": 2}
    assert set(stay) <= set(rows.log_ids.tolist())
    assert rows.log_ids.size == len(range(0, 2400, 30)) + len(stay)


def test_a_row_counts_once(conn: Connection) -> None:
    """Tied as a trace, an incident and a burst at once; and one that a model was trained on is counted there."""
    for seconds in (-10, 5, 20):
        line(conn, seconds, label="1", trace_id="t1", message="out of memory")
    line(conn, 40, label="1", message="out of memory")
    stays = line(conn, 3_000)
    rows = scored(conn, trained_on=[Window(START, START + 10 * SECOND)])
    assert (rows.excluded, rows.tied) == (1, {"trace": 1, "incident": 1, "burst": 0})
    assert rows.log_ids.tolist() == [stays]


def test_the_cut_of_the_stream_changes_nothing(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    for seconds in sorted(rng.integers(-600, 3_000, 500).tolist()):
        line(
            conn,
            seconds,
            label=rng.choice([None, "0", "1"], p=[0.3, 0.6, 0.1]),
            service=["shop", "mailer", None][rng.integers(3)],
            message=["retry {n}", "job {n} done", "stopped", "started by {n}"][rng.integers(4)].format(n=seconds),
            trace_id=[None, None, f"t{rng.integers(300)}"][rng.integers(3)],
        )
    for seconds in (-9, 5, 25, 50):
        line(conn, seconds, service="traced", trace_id="t", message="a")
        line(conn, seconds, service="failing", label="1", message=f"b {'c' * (seconds + 10)}")
        line(conn, seconds, service="repeating", message="d")
    whole = scored(conn)
    assert all(whole.tied.values())
    monkeypatch.setitem(row_store.stream.__kwdefaults__, "chunk_rows", 7)
    cut = scored(conn)
    assert cut.tied == whole.tied
    for name in ("ts_us", "log_ids", "positive", "clusters"):
        assert np.array_equal(getattr(cut, name), getattr(whole, name)), name
    assert np.array_equal(cut.scores[0], whole.scores[0])


def test_an_incident_over_the_full_hour_is_one_cluster(conn: Connection) -> None:
    for seconds in (3_500, 3_700, 9_000):
        line(conn, seconds, label="1")
    assert scored(conn).clusters.tolist() == [0, 0, 1]


def test_the_decision_tells_what_was_left_out_and_its_hash_is_of_the_rest(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    border = version_row(shop, version)["holdout_window"].lower
    before = judge_candidate(shop, DETECTOR, version, decided_by="test", dry_run=True)
    with transaction(shop) as conn:
        for seconds in (-5, 5, 10):
            ts = border + seconds * SECOND
            add_label(conn, insert_log(conn, ts, "a long story", service="tales", trace_id="t1"), "0", ts=ts)
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")
    assert (report.holdout_rows, report.holdout_hash) == (before.holdout_rows, before.holdout_hash)
    figures = decisions(shop)[0]["figures"]
    assert figures["tied_rows"]["trace"] == 2
    detail = {gate["name"]: gate["detail"] for gate in figures["gates"]}["enough_positives"]
    assert "are left out as part of what began before it: trace 2" in detail
