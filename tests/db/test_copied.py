"""What is written and read by COPY arrives as it was, whatever is in it, and is read along the key."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import psycopg
import pytest
from sqlalchemy import text

from mllib import sources
from mllib.features.pipeline import PipelineFeatures
from mllib.ingest.base import FlowRecord, LogRecord, RunRecord
from mllib.ingest.batches import Batch
from mllib.store import binary_copy, rows, text_copy
from mllib.store.database import driver, transaction
from mllib.store.records import writer
from mllib.types import Window
from tests.db.scoring_factories import insert_logs, make_partitions
from tests.factories import START

HARD = ["", "\\N", "\\.", "a\\.\n\\.\nb", "tab\there", "back\\slash\\n", "\r\n", '"quoted", it\'s', "ü💥\u2028", " "]


def encoded_rows(into, source, row_ids, records):
    frame = into.rows(Batch(parsed=records)).with_columns(
        pl.Series("row_id", row_ids, dtype=pl.Int64),
        pl.lit(source).alias("source"),
        pl.coalesce("source_id", pl.col("line").cast(pl.String)),
    )
    return text_copy.encoded(frame.select("ts", "row_id", "source", "source_id", *into.schema))


def test_every_text_a_log_line_may_have_arrives_as_it_was(engine):
    records = [
        (number, LogRecord(START, None, hard, hard, hard, hard, None, None, hard, {"a": hard}, None))
        for number, hard in enumerate(HARD, start=1)
    ]
    logs = writer(sources.LOGS)
    with transaction(engine) as conn, driver(conn).cursor() as cursor:
        with cursor.copy(logs.copy) as copy:
            copy.write(encoded_rows(logs, "so\turce", range(1, len(HARD) + 1), records))
        found = cursor.execute(
            "select source, source_id, level, service, host, trace_id, message, attributes->>'a' from millrace.logs"
            " order by log_id"
        ).fetchall()
    assert found == [("so\turce", str(number), *[hard] * 6) for number, hard in enumerate(HARD, start=1)]


def test_nulls_numbers_and_times_of_log_lines_arrive_as_they_were(engine):
    times = [datetime(1, 1, 3, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_999, UTC), START]
    numbers = [(None, None), (1e-06, 0), (999_999_999_999.5, 999)]
    records = [
        (7, LogRecord(ts, "own", None, None, None, "m", ms, status, None, None, None))
        for ts, (ms, status) in zip(times, numbers, strict=True)
    ]
    logs = writer(sources.LOGS)
    with transaction(engine) as conn, driver(conn).cursor() as cursor:
        with cursor.copy(logs.copy) as copy:
            copy.write(encoded_rows(logs, "s", [1, 2, 3], records))
        found = cursor.execute(
            "select ts, source_id, level, host, trace_id, attributes, response_time_ms, status_code"
            " from millrace.logs order by log_id"
        ).fetchall()
    assert [row[:6] for row in found] == [(ts, "own", None, None, None, None) for ts in times]
    assert [row[6:] for row in found] == [(None, None), (pytest.approx(1e-06), 0), (pytest.approx(1e12), 999)]


def test_runs_and_flows_arrive_as_they_were(engine):
    hosts = tuple(host for host in HARD if host)
    run = RunRecord(
        START, None, "p", "r", None, None, None, PipelineFeatures({"duration_s": 3}, hosts, {"e": HARD}), None, None
    )
    flow = FlowRecord(START, "f", "nsl_kdd", "10.0.0.1", None, 65_535, "tcp", {"duration": 0, "x": HARD}, None, None)
    with transaction(engine) as conn, driver(conn).cursor() as cursor:
        for table, record in ((sources.PIPELINE_RUNS, run), (sources.NETWORK_FLOWS, flow)):
            into = writer(table)
            with cursor.copy(into.copy) as copy:
                copy.write(encoded_rows(into, "s", [1], [(12, record)]))
        runs = cursor.execute("select source_id, duration_s, log_lines, hosts, evidence from millrace.pipeline_runs")
        assert runs.fetchall() == [("12", 3.0, None, list(hosts), {"e": HARD})]
        flows = cursor.execute("select source_id, dst_port, dst_ip, features from millrace.network_flows")
        assert flows.fetchall() == [("f", 65_535, None, {"duration": 0, "x": HARD})]


@pytest.mark.parametrize("classes", [None, ["a", "ü" * 40, "a", "b"]])
def test_predictions_arrive_to_the_last_bit(engine, classes):
    given = pl.DataFrame(
        {
            "ts": [START - timedelta(days=20_000), START, START + timedelta(microseconds=1), START],
            "log_id": [1, 2, 3, 2**62],
            "run_id": [2**31 - 1] * 4,
            "model_version": [1] * 4,
            "score": pl.Series([0.0, 0.6, 0.1, 1.0], dtype=pl.Float32),
            "raw_score": pl.Series([1e-30, 0.3, 1 / 3, 0.999_999_9], dtype=pl.Float32),
            "detector_id": [9] * 4,
            "severity": pl.Series([0, 1, 0, 4], dtype=pl.Int16),
            "is_anomaly": [False, True, False, True],
            "explanation": [None, json.dumps({"note": "ü\n"}), None, "{}"],
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )
    names = [*binary_copy.COLUMNS, "explanation"]
    if classes:
        given = given.with_columns(
            pl.Series("class", classes), pl.Series("confidence", [0.1, 0.2, 0.3, 1.0], dtype=pl.Float32)
        )
        names[-1:] = ["class", "confidence", "explanation"]
    with transaction(engine) as conn, driver(conn).cursor() as cursor:
        with cursor.copy(f"copy millrace.predictions ({', '.join(names)}) from stdin (format binary)") as copy:
            copy.write(b"".join([binary_copy.HEADER, *binary_copy.encoded(given), binary_copy.TRAILER]))
        columns = ", ".join("explanation::text" if name == "explanation" else name for name in names)
        found = cursor.execute(f"select {columns} from millrace.predictions order by log_id").fetchall()  # noqa: S608
    expected = given.select(names).rows()
    assert [row[:-1] for row in found] == [
        tuple(pytest.approx(value, rel=1e-7) if isinstance(value, float) else value for value in row[:-1])
        for row in expected
    ]
    explained = [None if row[-1] is None else json.loads(row[-1]) for row in found]
    assert explained == [None if row[-1] is None else json.loads(row[-1]) for row in expected]


def test_an_array_of_texts_is_read_as_one(engine):
    with transaction(engine) as conn:
        read = conn.execute(text("select cast(:given as text[])"), {"given": text_copy.array(HARD)}).scalar_one()
    assert read == HARD


@pytest.mark.parametrize("analyzed", [False, True])
def test_rows_are_read_along_the_key_whatever_the_planner_knows_of_them(engine, analyzed):
    days = [START.date() + timedelta(days=day) for day in range(3)]
    make_partitions(engine, *days)
    insert_logs(engine, 2_000, step=timedelta(minutes=2))
    with transaction(engine) as conn:
        if analyzed:
            driver(conn).execute("analyze millrace.logs")
        else:
            driver(conn).execute("set local random_page_cost = 4")  # a server as it comes
        window = Window(START, START + timedelta(days=3))
        selection = rows.RowsInWindow(window=window, current=rows.current_snapshot(conn))
        plan = rows.plan(conn, sources.source("logs"), selection, window, context=timedelta(minutes=5))
    assert "Sort  (cost" not in plan
    assert "Index Scan" in plan


def test_a_reject_of_the_server_is_told_as_ever(engine):
    logs = writer(sources.LOGS)
    far = LogRecord(datetime(9999, 12, 31, 1, tzinfo=UTC), None, None, None, None, "m", None, None, None, None, None)
    with (
        pytest.raises(psycopg.errors.CheckViolation, match="logs_ts_range"),
        transaction(engine) as conn,
        driver(conn).cursor() as cursor,
        cursor.copy(logs.copy) as copy,
    ):
        copy.write(encoded_rows(logs, "s", [1], [(1, far)]))
