"""Daily partitions: made once, beside readers and writers, and no row is lost, doubled or made new by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine, text

from mllib.jobs.maintenance import DAYS_AHEAD, maintain
from mllib.sources import LOGS
from mllib.store import partitions
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.factories import insert_log, rows, scalar
from tests.factories import START

DAY = START.date()
MIDNIGHT = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
WHERE = "select relname, message from millrace.logs join pg_class on pg_class.oid = logs.tableoid order by message"


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", "300ms")


def days(engine: Engine, parent: str = partitions.LOGS) -> set[date]:
    with transaction(engine) as conn:
        return partitions.existing(conn, parent)


def count(conn: Connection, condition: str = "true") -> int:
    return int(conn.execute(text(f"select count(*) from millrace.logs where {condition}")).scalar_one())  # noqa: S608


def test_a_partition_is_made_once(engine: Engine) -> None:
    assert partitions.ensure(engine, partitions.LOGS, [DAY, DAY + timedelta(days=1), DAY]) == 2
    assert partitions.ensure(engine, partitions.LOGS, [DAY, DAY + timedelta(days=1)]) == 0
    assert partitions.ensure(engine, partitions.LOGS, []) == 0
    assert days(engine) == {DAY, DAY + timedelta(days=1)}


def test_calls_at_once_make_it_once(engine: Engine) -> None:
    callers = 8
    start = Barrier(callers)
    wanted = [DAY + timedelta(days=offset) for offset in range(3)]

    def call(_: int) -> int:
        start.wait()
        return partitions.ensure(engine, partitions.LOGS, wanted)

    with ThreadPoolExecutor(callers) as pool:
        assert sum(pool.map(call, range(callers))) == 3
    assert days(engine) == set(wanted)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_a_day_is_a_day_in_utc_whatever_the_zone_of_the_session(engine: Engine, zone: str) -> None:
    with transaction(engine) as conn:
        conn.execute(text(f"set local timezone = '{zone}'"))
        conn.execute(text("select millrace.ensure_partition('logs', :day)"), {"day": DAY})
        instant = timedelta(microseconds=1)
        insert_log(conn, MIDNIGHT - instant, "1 before")
        insert_log(conn, MIDNIGHT, "2 first")
        insert_log(conn, MIDNIGHT + timedelta(days=1) - instant, "3 last")
        insert_log(conn, MIDNIGHT + timedelta(days=1), "4 after")
    child, default = f"logs_{DAY:%Y%m%d}", "logs_default"
    assert rows(engine, WHERE) == [(default, "1 before"), (child, "2 first"), (child, "3 last"), (default, "4 after")]


def test_a_partition_has_all_that_its_table_has(engine: Engine) -> None:
    for parent in partitions.PARTITIONED:
        partitions.ensure(engine, parent, [DAY])
        columns = (
            "select attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)"
            " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
            " where attrelid = cast(:name as regclass) and attnum > 0 order by attnum"
        )
        indexes = "select count(*) from pg_index where indrelid = cast(:name as regclass)"
        checks = "select count(*) from pg_constraint where conrelid = cast(:name as regclass) and contype = 'c'"
        whole, part = f"millrace.{parent}", f"millrace.{parent}_{DAY:%Y%m%d}"
        assert rows(engine, columns, name=part) == rows(engine, columns, name=whole)
        for statement in (indexes, checks):
            assert scalar(engine, statement, name=part) == scalar(engine, statement, name=whole)


def test_strays_move_out_of_the_default_partition_as_they_are(engine: Engine) -> None:
    for message in ("1 one", "2 another"):  # two transactions, so two ingest_xid
        with transaction(engine) as conn:
            insert_log(conn, START, message, attributes=None, level="INFO")
    with transaction(engine) as conn:
        insert_log(conn, START + timedelta(days=1), "3 of the next day")
    everything = "select ts, log_id, ingest_xid::text, ingested_at, level, message from millrace.logs order by log_id"
    before = rows(engine, everything)
    assert len({row[2] for row in before}) == 3
    partitions.ensure(engine, partitions.LOGS, [DAY])
    assert rows(engine, everything) == before
    child = f"logs_{DAY:%Y%m%d}"
    assert [table for table, _ in rows(engine, WHERE)] == [child, child, "logs_default"]


def test_a_reader_with_an_older_snapshot_sees_each_row_once_while_strays_move(engine: Engine) -> None:
    with transaction(engine) as conn:
        for number in range(5):
            insert_log(conn, START, str(number))
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        reader.execute(text("select pg_current_snapshot()"))
        assert partitions.ensure(engine, partitions.LOGS, [DAY]) == 1
        assert count(reader) == 5
    with transaction(engine) as conn:
        assert count(conn) == 5


def test_it_works_beside_a_reader_and_a_writer_of_other_days(engine: Engine) -> None:
    partitions.ensure(engine, partitions.LOGS, [DAY])
    with engine.connect() as reader, engine.connect() as writer:
        insert_log(writer)
        assert count(reader, f"ts >= '{MIDNIGHT}' and ts < '{MIDNIGHT + timedelta(days=1)}'") == 0
        tomorrow = DAY + timedelta(days=1)
        assert partitions.ensure(engine, partitions.LOGS, [tomorrow]) == 1
        insert_log(writer, START + timedelta(days=1))  # a transaction that goes on finds the new one
        writer.commit()
        assert count(reader) == 2
    assert days(engine) == {DAY, tomorrow}


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("busy", ["a reader of everything", "an open insert into the default partition"])
def test_where_the_default_partition_is_in_use_it_gives_up_and_a_later_call_makes_good(
    engine: Engine, busy: str
) -> None:
    with engine.connect() as other:
        if busy == "a reader of everything":
            count(other)
        else:
            insert_log(other, message="1 open")
        assert partitions.ensure(engine, partitions.LOGS, [DAY, DAY + timedelta(days=1)]) == 0
        with transaction(engine) as conn:
            insert_log(conn, message="2 meanwhile")  # nobody is locked out
        other.commit()
    assert partitions.adopt_strays(engine) == 1
    assert {table for table, _ in rows(engine, WHERE)} == {f"logs_{DAY:%Y%m%d}"}


def test_other_errors_are_not_taken_for_a_lock(engine: Engine) -> None:
    with pytest.raises(Exception, match="does not exist"):
        partitions.ensure(engine, "no_such_table", [DAY])


def test_partitions_are_made_ahead_for_every_partitioned_table(engine: Engine) -> None:
    assert partitions.create_ahead(engine, today=DAY, days=2) == 15
    assert partitions.create_ahead(engine, today=DAY, days=2) == 0
    tables = rows(engine, "select relname from pg_class where relkind = 'p' order by 1")
    assert [name for (name,) in tables] == [
        "logs",
        "network_flows",
        "pipeline_runs",
        "predictions",
        "predictions_history",
    ]
    for (name,) in tables:
        assert days(engine, name) == {DAY + timedelta(days=offset) for offset in range(3)}


def test_the_fullest_days_of_strays_come_first(engine: Engine) -> None:
    with transaction(engine) as conn:
        for offset, lines in enumerate((1, 3, 2)):
            for _ in range(lines):
                insert_log(conn, START + timedelta(days=offset))
    assert partitions.adopt_strays(engine, at_most=2) == 2
    assert days(engine) == {DAY + timedelta(days=1), DAY + timedelta(days=2)}
    done = maintain(engine, today=DAY)
    assert (done["partitions_ahead"], done["partitions_for_strays"]) == (5 * (DAYS_AHEAD + 1) - 2, 0)
    assert set(done["reach"].values()) == {str(DAY + timedelta(days=DAYS_AHEAD))}
    assert scalar(engine, "select count(*) from only millrace.logs_default") == 0
    assert scalar(engine, "select count(*) from millrace.logs") == 6


def test_strays_of_wild_clocks_are_adopted_too(engine: Engine) -> None:
    wild = [datetime(1, 1, 2, tzinfo=UTC), datetime(1969, 12, 31, 23, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)]
    with transaction(engine) as conn:
        for ts in wild:
            insert_log(conn, ts)
    assert partitions.adopt_strays(engine) == 3
    assert partitions.adopt_strays(engine) == 0
    assert (
        partitions.mirror(engine, partitions.PREDICTIONS, [Window(wild[0], wild[-1] + timedelta(hours=1))], of=LOGS)
        == 3
    )


def test_predictions_get_the_days_that_logs_have(engine: Engine) -> None:
    partitions.ensure(engine, partitions.LOGS, [DAY + timedelta(days=offset) for offset in (0, 1, 2, 5)])
    until_midnight = Window(START, MIDNIGHT + timedelta(days=1))
    later = Window(MIDNIGHT + timedelta(days=2, hours=23), MIDNIGHT + timedelta(days=5))
    assert partitions.mirror(engine, partitions.PREDICTIONS, [until_midnight, later], of=LOGS) == 2
    assert days(engine, partitions.PREDICTIONS) == {DAY, DAY + timedelta(days=2)}
    assert partitions.mirror(engine, partitions.PREDICTIONS, [], of=LOGS) == 0
