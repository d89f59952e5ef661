"""Explanations in the tables and views: written with the predictions, kept in the history, shown as of a time."""

from __future__ import annotations

import json
from datetime import timedelta

from sqlalchemy import Engine, text

from mllib.jobs import scoring
from mllib.settings import PROJECT
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import insert_logs, predictions_hash, promote_model, rows, scalar
from tests.factories import START

ALL = Window(START - timedelta(days=1), START + timedelta(days=1))


def test_anomalies_and_no_others_have_one_in_the_view(engine: Engine) -> None:
    promote_model(engine, threshold=0.56)
    insert_logs(engine, 600)
    scoring.score(engine, "log_anomaly")
    assert rows(
        engine,
        "select is_anomaly, explanation is not null, count(*) > 0 from analytics.predictions_current group by 1, 2"
        " order by 1",
    ) == [(False, False, True), (True, True, True)]
    names = {
        name
        for (name,) in rows(
            engine,
            "select distinct f ->> 'name' from analytics.predictions_current,"
            " jsonb_array_elements(explanation -> 'features') as f",
        )
    }
    assert {"response_time", "level"} <= names
    [(size, shares)] = rows(
        engine,
        "select max(length(explanation::text)), max(abs(1 - (explanation ->> 'other')::float - (select"
        " sum((f ->> 'share')::float) from jsonb_array_elements(explanation -> 'features') as f)))"
        " from analytics.predictions_current where explanation ? 'features'",
    )
    assert size < 1_000
    assert shares < 5e-4


def test_a_re_score_keeps_the_earlier_one_and_each_time_shows_its_own(engine: Engine, champion: int) -> None:
    insert_logs(engine, 600)
    scoring.score(engine, "log_anomaly")
    seen = "select log_id, explanation from {} where is_anomaly order by log_id"
    first = rows(engine, seen.format("analytics.predictions_current"))
    moment = scalar(engine, "select clock_timestamp()")
    same = predictions_hash(engine)
    scoring.score(engine, "log_anomaly", window=ALL)
    assert predictions_hash(engine) == same
    promote_model(engine, threshold=0.56)
    scoring.score(engine, "log_anomaly", window=ALL)
    second = rows(engine, seen.format("analytics.predictions_current"))
    assert 0 < len(second) < len(first)
    with transaction(engine) as conn:
        then = conn.execute(text(seen.format("analytics.predictions_as_of(:moment)")), {"moment": moment})
        assert [tuple(row) for row in then] == first
    assert rows(engine, seen.format("millrace.predictions_history") + ", superseded_at")[0][1] == first[0][1]


def test_the_query_for_analysts_unpacks_them(engine: Engine, champion: int) -> None:
    insert_logs(engine, 600)
    scoring.score(engine, "log_anomaly")
    page = (PROJECT / "docs" / "analysts.md").read_text().partition("\n## Why was this line flagged\n")[2]
    query = page.partition("```sql\n")[2].partition("```")[0].replace("now() - interval '1 day'", f"'{START:%Y-%m-%d}'")
    found = rows(engine, query.strip().rstrip(";").replace(":", "\\:"))
    assert found
    by_line: dict[int, float] = {}
    for row in found:
        by_line[row[0]] = by_line.get(row[0], 0.0) + float(row[-1])
    # The shares of a line, the rest among them, are the whole of its excess.
    assert all(abs(total - 1) < 5e-4 for total in by_line.values())


def test_text_out_of_a_log_is_stored_as_a_value(engine: Engine, champion: int) -> None:
    hostile = '"},{"name":"x\\"; drop table logs; -- \u202e\x1b[31m'
    with transaction(engine) as conn:
        conn.execute(
            text("insert into millrace.logs (ts, level, service, message) values (:ts, 'FATAL', :service, :service)"),
            {"ts": START, "service": hostile},
        )
    promote_model(engine, threshold=0.3)
    scoring.score(engine, "log_anomaly")
    [(explanation,)] = rows(engine, "select explanation::text from analytics.predictions_current")
    said = [f["value"] for f in json.loads(explanation)["features"] if f["name"] == "service"]
    assert all(value.startswith('"},{"name":"x\\"; drop table logs; --') for value in said)
    assert explanation.isprintable()
