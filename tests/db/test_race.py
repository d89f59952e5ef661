"""Writers and scoring runs at the same time: what is committed is scored once, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta

from sqlalchemy import Engine

from mllib.jobs import scoring
from mllib.store import partitions
from mllib.types import Window
from tests.db.scoring_factories import DETECTOR, check_accounts, make_partitions, promote_model, rows, scalar
from tests.db.writers import check_book, writing
from tests.factories import START

WRITERS = 16
SECONDS = 12
MINUTE = timedelta(minutes=1)

# What a scheduler does, but without the hour in between. Small shards, so that two can share a run.
SCHEDULER = """
import sys, time
from mllib.jobs import scoring
from mllib.store.database import engine_for
engine = engine_for(sys.argv[1])
number = 0
print("ready", flush=True)
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    claimed, _ = scoring.claim(engine, "log_anomaly", f"{sys.argv[2]} {number}", shard_rows=300)
    scoring.finish(engine, claimed.run.run_id)
    number += 1
print(number)
"""


def test_sixteen_writers_and_one_scorer(engine: Engine) -> None:
    make_partitions(engine)
    promote_model(engine)
    reports = []
    with writing(engine, WRITERS) as book:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            reports.append(scoring.score(engine, DETECTOR))
    reports.append(scoring.score(engine, DETECTOR))
    assert len([report for report in reports if report.scored]) > 5
    assert sum(report.scored for report in reports) == len(book.committed) > 2_000
    assert book.rolled_back
    check_book(engine, book)
    check_accounts(engine)


def test_two_schedulers_windows_and_moving_partitions(engine: Engine, dsn: str) -> None:
    """Two processes score new rows as fast as they can; windows are scored again, and stray rows moved, beside them."""
    make_partitions(engine)
    promote_model(engine)
    again = 0
    with writing(engine, WRITERS) as book:
        schedulers = [
            subprocess.Popen([sys.executable, "-c", SCHEDULER, dsn, name, str(SECONDS)], stdout=subprocess.PIPE)
            for name in ("one", "two")
        ]
        while any(scheduler.poll() is None for scheduler in schedulers):
            begin = START + (again * 17 % 110) * MINUTE
            scoring.score(engine, DETECTOR, window=Window(begin, begin + 10 * MINUTE))
            again += 1
            if again % 5 == 0:
                partitions.adopt_strays(engine)
        finished = [(scheduler.communicate()[0], scheduler.returncode) for scheduler in schedulers]
    scoring.score(engine, DETECTOR)
    assert all(code == 0 and int(said.split()[-1]) > 3 for said, code in finished), finished
    assert again > 5
    assert len(book.committed) > 2_000
    check_book(engine, book)
    ever = scalar(engine, "select sum(claimed) from millrace.scoring_runs")
    check_accounts(engine, ever=ever)
    assert scalar(engine, "select count(*) from millrace.predictions_history") > 0
    by_kind = dict(rows(engine, "select kind, count(*) from millrace.scoring_runs where claimed > 0 group by 1"))
    assert by_kind["new_rows"] > 5
    assert by_kind["window"] > 5
