"""The schema itself: explained in the database, open to plain SQL, and read-only to analysts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from mllib.settings import SQL
from mllib.store.database import transaction
from tests.db.factories import add_versions, decide, insert_log, rows, scalar
from tests.factories import START

VIEWS = sorted(path.stem for path in (SQL / "views").glob("*.sql"))
READABLE = [
    "logs",
    "pipeline_runs",
    "network_flows",
    "labels",
    "labels_current",
    "detectors",
    "model_registry",
    "promotion_decisions",
    "scoring_runs",
    "predictions",
    "predictions_history",
    "prediction_hours",
    "session_scores",
]
NOT_READABLE = [
    "ingest_rejects",
    "ingest_files",
    "model_artifacts",
    "scoring_shards",
    "logs_default",
    "network_flows_default",
]


def test_everything_has_a_comment(engine: Engine) -> None:
    """Tables, views and their columns; partitions are explained by what they are a part of."""
    silent = rows(
        engine,
        """
        select c.relname, a.attname
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attnum >= 0 and not a.attisdropped
        where c.relnamespace in ('millrace'::regnamespace, 'analytics'::regnamespace)
            and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
            and coalesce(col_description(c.oid, a.attnum), '') = ''
        union all
        select c.relname, null
        from pg_class as c
        where c.relnamespace in ('millrace'::regnamespace, 'analytics'::regnamespace)
            and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
            and coalesce(obj_description(c.oid, 'pg_class'), '') = ''
        union all
        select proname || '()', null from pg_proc
        where pronamespace in ('millrace'::regnamespace, 'analytics'::regnamespace)
            and obj_description(oid, 'pg_proc') is null
        union all
        select nspname, null from pg_namespace
        where nspname in ('millrace', 'analytics') and obj_description(oid, 'pg_namespace') is null
        """,
    )
    assert silent == []


def test_comments_of_tables_and_views_state_their_grain(engine: Engine) -> None:
    said = rows(
        engine,
        "select relname, obj_description(oid, 'pg_class') from pg_class where relkind in ('r', 'p', 'v')"
        " and relnamespace in ('millrace'::regnamespace, 'analytics'::regnamespace) and not relispartition",
    )
    assert len(said) > 15
    assert [name for name, comment in said if not re.match("Grain: (the )?(one|current) ", comment)] == []


def test_there_is_one_view_a_file(engine: Engine) -> None:
    there = rows(engine, "select viewname from pg_views where schemaname = 'analytics' order by 1")
    assert [name for (name,) in there] == VIEWS
    for name in VIEWS:
        assert Path(SQL / "views" / f"{name}.sql").read_text().startswith("-- Grain: one ")


@pytest.mark.parametrize("day", [START, datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, tzinfo=UTC)])
def test_time_and_message_are_enough_on_any_day(engine: Engine, day: datetime) -> None:
    with transaction(engine) as conn:
        first, second = insert_log(conn, day), insert_log(conn, day)
    assert second > first
    stored = rows(
        engine,
        "select ts, source, message, ingested_at is not null, pg_visible_in_snapshot(ingest_xid, pg_current_snapshot())"
        " from millrace.logs",
    )
    assert stored == [(day, "sql", "a line", True, True)] * 2


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("(message) values ('no time')", "null value in column .ts"),
        ("(ts) values (now())", "null value in column .message"),
        ("(ts, message) values ('infinity', 'x')", "logs_ts_range"),
        ("(ts, message) values ('-infinity', 'x')", "logs_ts_range"),
        ("(ts, message) values ('20000-01-01', 'x')", "logs_ts_range"),
        ("(ts, message, response_time_ms) values (now(), 'x', -1)", "response_time_ms_check"),
        ("(ts, message, response_time_ms) values (now(), 'x', 'NaN')", "response_time_ms_check"),
    ],
)
def test_a_row_that_nothing_can_work_with_is_refused(engine: Engine, columns: str, problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem), transaction(engine) as conn:
        conn.execute(text(f"insert into millrace.logs {columns}"))


def as_analyst(engine: Engine, statement: str) -> None:
    with transaction(engine) as conn:
        conn.execute(text("set local role millrace_analyst"))
        conn.execute(text(statement))


@pytest.mark.parametrize("view", VIEWS)
def test_an_analyst_reads_every_view(engine: Engine, view: str) -> None:
    as_analyst(engine, f"table analytics.{view}")


def test_an_analyst_reads_the_tables_beneath(engine: Engine) -> None:
    for table in READABLE:
        as_analyst(engine, f"table millrace.{table}")
    as_analyst(engine, "select millrace.champion_at('log_anomaly', now())")


def test_an_analyst_sees_the_rows(engine: Engine) -> None:
    decide(engine, add_versions(engine)[0], None)
    with transaction(engine) as conn:
        insert_log(conn)
        conn.execute(text("set local role millrace_analyst"))
        assert conn.execute(text("select count(*) from millrace.logs")).scalar_one() == 1
        assert conn.execute(text("select status from analytics.model_history")).scalars().all() == ["champion"]


@pytest.mark.parametrize("table", NOT_READABLE)
def test_an_analyst_does_not_read_what_is_no_ones_business(engine: Engine, table: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        as_analyst(engine, f"table millrace.{table}")


def test_an_analyst_changes_nothing(engine: Engine) -> None:
    """Asked of PostgreSQL for every table and view, so that a new one is not forgotten."""
    granted = rows(
        engine,
        "select c.oid::regclass::text, p.privilege from pg_class as c, unnest(array['INSERT', 'UPDATE', 'DELETE',"
        " 'TRUNCATE', 'REFERENCES', 'TRIGGER']) as p (privilege) where c.relkind in ('r', 'p', 'v')"
        " and c.relnamespace in ('millrace'::regnamespace, 'analytics'::regnamespace, 'public'::regnamespace)"
        " and has_table_privilege('millrace_analyst', c.oid, p.privilege)",
    )
    assert granted == []


@pytest.mark.parametrize(
    "statement",
    [
        "insert into millrace.logs (ts, message) values (now(), 'x')",
        "insert into millrace.labels (ts, row_id, label, origin) values (now(), 1, '1', 'analyst')",
        "update millrace.model_registry set status = 'champion'",
        "update analytics.predictions_current set score = 0",
        "delete from millrace.predictions",
        "truncate millrace.logs",
        "select nextval('millrace.log_id_seq')",
        "select millrace.ensure_partition('logs', '2026-03-02')",
        "create table millrace.mine (id int)",
        "create view analytics.mine as select 1",
        "create table public.mine (id int)",
        "create schema mine",
        "drop view analytics.predictions_current",
        "select * from public.millrace_migrations",
    ],
)
def test_an_analyst_who_tries_is_refused(engine: Engine, statement: str) -> None:
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner|cannot update view"):
        as_analyst(engine, statement)
    assert scalar(engine, "select count(*) from millrace.logs") == 0
