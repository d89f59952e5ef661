"""The doctor: each promise is broken on purpose, is found, and is mended by the very command that the doctor names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.jobs import scoring
from mllib.jobs.doctor import Finding, Patience, examine
from mllib.store import partitions
from mllib.store.database import transaction
from tests.db.factories import add_label, insert_log
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    promote_model,
    scalar,
    store_model,
    unscored,
)
from tests.db.shell import shell
from tests.db.test_cli import millrace
from tests.factories import START

DAY = START.date()
CHILD = f"{DAY:%Y%m%d}"
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))


def do(engine: Engine, *statements: str) -> None:
    with transaction(engine) as conn:
        for statement in statements:
            conn.execute(text(statement))


def checks(engine: Engine, patience: Patience = AT_ONCE) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(engine, patience=patience).findings}


def mend(engine: Engine, dsn: str, check: str, *, patience: Patience = AT_ONCE) -> Finding:
    """Sees the finding, runs the commands named until nothing is found any more, at most three, and returns it."""
    seen = checks(engine, patience)
    assert check in seen, seen
    assert seen[check].message.endswith(".")
    assert seen[check].count > 0
    for _ in range(3):
        found = examine(engine, patience=patience).findings
        if not found:
            return seen[check]
        shell(found[0].command, dsn)
    assert examine(engine, patience=patience).findings == ()
    return seen[check]


@pytest.fixture
def scored(engine: Engine, champion: int) -> int:
    """A database whose every row is scored: 300 rows over five minutes and 100 over two hours. Returns the run."""
    insert_logs(engine, 300)
    insert_logs(engine, 100, start=START + timedelta(hours=1), step=timedelta(minutes=1), first=300)
    run = scoring.score(engine, DETECTOR).run_id
    assert examine(engine, patience=AT_ONCE).findings == ()
    assert champion == 1
    return run


def test_a_fresh_database_is_fine(engine: Engine) -> None:
    report = examine(engine)
    assert report.as_dict() == {"ok": True, "findings": []}


def test_the_command_says_it_in_words_in_json_and_by_its_exit_code(dsn: str, engine: Engine, scored: int) -> None:
    fine = millrace("doctor", dsn=dsn)
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, "Every promise holds.\n", "")
    do(engine, f"delete from millrace.predictions where run_id = {scored} and ts < '{START + timedelta(seconds=7)}'")  # noqa: S608
    ill = millrace("doctor", "--json", dsn=dsn)
    assert (ill.returncode, ill.stderr) == (1, "")
    *words, last = ill.stdout.splitlines()
    answer = json.loads(last)
    assert answer["ok"] is False
    (missed,) = [found for found in answer["findings"] if found["check"] == "missed"]
    assert missed.keys() == {"check", "severity", "message", "command", "count"}
    assert (missed["count"], missed["severity"]) == (7, "error")
    assert f"error: {missed['message']}" in words
    assert f"    {missed['command']}" in words


def test_a_schema_that_is_not_this_versions(dsn: str, engine: Engine) -> None:
    do(
        engine,
        "delete from public.millrace_migrations where name like '0006%'",
        "drop table millrace.retention, millrace.labels_put_away, millrace.database_identity cascade",
        "drop function millrace.drop_partition, millrace.is_kept, millrace.system_identifier",
        "drop procedure millrace.advance_transaction_ids",
    )
    assert mend(engine, dsn, "schema").command == "millrace migrate"


@pytest.mark.usefixtures("scored")
@pytest.mark.parametrize("where", ["true", f"ts < '{START + timedelta(seconds=3)}'", "log_id % 7 = 0", "is_anomaly"])
def test_rows_that_were_claimed_and_not_scored(dsn: str, engine: Engine, where: str) -> None:
    with transaction(engine) as conn:
        conn.execute(text("update millrace.predictions set is_anomaly = true where log_id % 50 = 0"))
        gone = conn.execute(text(f"delete from millrace.predictions where {where}")).rowcount  # noqa: S608
    found = [finding for finding in examine(engine).findings if finding.check == "missed"]
    assert sum(finding.count for finding in found) == gone
    mend(engine, dsn, "missed")
    assert unscored(engine) == []


def test_rows_that_nobody_has_claimed_yet_are_not_missed(engine: Engine, scored: int) -> None:
    insert_logs(engine, 10, first=500)
    assert checks(engine).keys() == {"freshness"}
    assert checks(engine, Patience()) == {}
    claimed, _ = scoring.claim(engine, DETECTOR, "mine")
    assert checks(engine).keys() == {"open_runs"}
    assert checks(engine, Patience()) == {}
    assert claimed.run.run_id > scored


@pytest.mark.usefixtures("scored")
def test_rows_that_have_waited_too_long(dsn: str, engine: Engine) -> None:
    do(
        engine,
        "insert into millrace.logs (ts, message, ingested_at) select ts, 'late', now() - interval '3 h' "
        "from millrace.logs limit 5",
    )
    found = mend(engine, dsn, "freshness", patience=Patience())
    assert (found.count, found.command) == (5, "millrace score log_anomaly")
    assert "for 3 h" in found.message
    check_accounts(engine)


@pytest.mark.parametrize("finished", [0, 1])
def test_a_run_that_nobody_works_on(dsn: str, engine: Engine, scored: int, finished: int) -> None:
    insert_logs(engine, 300, start=START + timedelta(hours=4), first=900)
    claimed, _ = scoring.claim(engine, DETECTOR, "lost", shard_rows=100)
    for shard in claimed.shards[:finished]:
        scoring.score_shard(engine, claimed.run.run_id, shard.shard)
    left = len(claimed.shards) - finished
    with engine.connect() as worker:  # one that has a shard in hand
        worker.execute(
            text("select from millrace.scoring_shards where run_id = :r and shard = :s for update"),
            {"r": claimed.run.run_id, "s": claimed.shards[-1].shard},
        )
        assert "open_runs" not in checks(engine)
    found = mend(engine, dsn, "open_runs")
    assert (found.count, found.command) == (left, "millrace score log_anomaly")
    assert f"{left} of {len(claimed.shards)} shards are left" in found.message
    check_accounts(engine)
    assert claimed.run.run_id > scored


def test_a_frozen_process_that_holds_a_shard(dsn: str, engine: Engine, scored: int) -> None:
    insert_logs(engine, 300, start=START + timedelta(hours=4), first=900)
    claimed, _ = scoring.claim(engine, DETECTOR, "frozen", shard_rows=100)
    held = claimed.shards[1].shard
    with engine.connect() as frozen:
        pid = frozen.execute(
            text("select pg_backend_pid() from millrace.scoring_shards where run_id = :r and shard = :s for update"),
            {"r": claimed.run.run_id, "s": held},
        ).scalar_one()
        assert "held_shards" not in checks(engine, Patience(stuck=timedelta(0)))  # it may just be slow
        found = checks(engine)["held_shards"]
        assert f"Process {pid} " in found.message
        assert f"shard {held} of run {claimed.run.run_id} " in found.message
        shell(found.command, dsn)
        assert "held_shards" not in checks(engine)
        frozen.invalidate()
    mend(engine, dsn, "open_runs")
    check_accounts(engine)
    assert claimed.run.run_id > scored


def test_a_finished_run_with_a_shard_that_is_not_in(dsn: str, engine: Engine, scored: int) -> None:
    do(engine, "update millrace.scoring_shards set finished_at = null, scored = null")
    found = mend(engine, dsn, "runs")
    assert "shards are not in" in found.message
    assert f"Run {scored} " in found.message
    assert unscored(engine) == []


@pytest.mark.usefixtures("scored")
def test_a_run_that_says_more_than_there_is(dsn: str, engine: Engine) -> None:
    do(engine, "update millrace.scoring_runs set scored = scored + 3")
    assert mend(engine, dsn, "runs").count == 3


@pytest.mark.usefixtures("scored")
def test_predictions_of_a_run_that_is_not_in_the_ledger(dsn: str, engine: Engine) -> None:
    do(engine, "update millrace.predictions set run_id = 77 where log_id % 5 = 0")
    assert mend(engine, dsn, "predictions_without_run").count == 80
    assert scalar(engine, "select count(*) from millrace.predictions where run_id = 77") == 0


@pytest.mark.usefixtures("scored")
def test_predictions_of_rows_that_are_gone(dsn: str, engine: Engine) -> None:
    do(engine, "delete from millrace.logs where log_id % 5 = 0")
    found = mend(engine, dsn, "predictions_without_row")
    assert (found.count, found.command) == (80, "millrace maintain --tidy")
    assert scalar(engine, "select count(*) from millrace.predictions_history") == 80
    assert scalar(engine, "select sum(rows) from millrace.prediction_hours") == 320


@pytest.mark.parametrize(
    "wrong",
    [
        "update millrace.prediction_hours set rows = rows + 1",
        "update millrace.prediction_hours set max_score = 0.123",
        "delete from millrace.prediction_hours where hour = (select max(hour) from millrace.prediction_hours)",
        "insert into millrace.prediction_hours select detector_id, hour - interval '1 day', run_id, 1, 0, 0 "
        "from millrace.prediction_hours",
    ],
)
@pytest.mark.usefixtures("scored")
def test_hours_that_disagree(dsn: str, engine: Engine, wrong: str) -> None:
    do(engine, wrong)
    assert mend(engine, dsn, "hours").command == "millrace maintain --tidy"
    check_accounts(engine)


@pytest.mark.usefixtures("scored")
def test_labels_whose_row_is_gone(dsn: str, engine: Engine) -> None:
    with transaction(engine) as conn:
        kept = insert_log(conn, START)
        add_label(conn, kept)
        add_label(conn, 999_999)
    scoring.score(engine, DETECTOR)
    assert mend(engine, dsn, "labels").count == 1
    assert scalar(engine, "select row_id from millrace.labels") == kept
    assert scalar(engine, "select row_id from millrace.labels_put_away") == 999_999


@pytest.mark.usefixtures("scored")
def test_a_database_without_partitions_ahead(dsn: str, engine: Engine) -> None:
    assert "partitions_ahead" not in checks(engine)
    do(engine, "update millrace.database_identity set recorded_at = now() - interval '2 days'")
    found = mend(engine, dsn, "partitions_ahead")
    assert (found.count, found.command) == (len(partitions.PARTITIONED), "millrace maintain")
    with transaction(engine) as conn:
        assert datetime.now(UTC).date() + timedelta(days=7) in partitions.existing(conn, partitions.LOGS)


@pytest.mark.usefixtures("scored")
def test_rows_left_in_a_default_partition(dsn: str, engine: Engine) -> None:
    do(
        engine,
        "insert into millrace.logs (ts, message, ingested_at)"  # noqa: S608
        f" values ('{START - timedelta(days=9)}', 'stray', now() - interval '2 days')",
    )
    scoring.score(engine, DETECTOR)
    found = mend(engine, dsn, "strays")
    assert (found.count, found.command) == (1, "millrace maintain")
    assert scalar(engine, "select count(*) from millrace.logs_default") == 0
    check_accounts(engine)


@pytest.mark.usefixtures("scored")
def test_a_partition_that_was_taken_off(dsn: str, engine: Engine) -> None:
    do(engine, f"alter table millrace.logs detach partition millrace.logs_{CHILD}")
    insert_logs(engine, 3, first=700)  # they go to the default partition
    found = checks(engine)
    assert found["detached"].command.startswith("psql ")
    shell(found["detached"].command, dsn)
    assert checks(engine).keys() == {"freshness"}
    scoring.score(engine, DETECTOR)
    check_accounts(engine)
    assert scalar(engine, "select count(*) from millrace.logs") == 403


@pytest.mark.parametrize("parent", ["logs", "predictions"])
@pytest.mark.usefixtures("scored")
def test_rows_that_are_there_twice(dsn: str, engine: Engine, parent: str) -> None:
    """PostgreSQL lets none in; so the default partition comes back with a constraint that was never checked."""
    default = f"millrace.{parent}_default"
    bounds = scalar(engine, f"select pg_get_partition_constraintdef('{default}'::regclass)")
    do(
        engine,
        f"alter table millrace.{parent} detach partition {default}",
        f"insert into {default} select * from millrace.{parent} order by log_id limit 4",  # noqa: S608
        f"alter table {default} add constraint unchecked check ({bounds}) not valid",
        "update pg_constraint set convalidated = true where conname = 'unchecked'",
        f"alter table millrace.{parent} attach partition {default} default",
    )
    assert scalar(engine, f"select count(*) from millrace.{parent}") == 404  # noqa: S608
    assert checks(engine)["doubles"].count == 4
    shell(checks(engine)["doubles"].command, dsn)
    assert examine(engine, patience=AT_ONCE).findings == ()
    assert scalar(engine, f"select count(*) from millrace.{parent}") == 400  # noqa: S608


def test_versions_without_a_champion(dsn: str, engine: Engine) -> None:
    version = store_model(engine)
    assert mend(engine, dsn, "champions").severity == "warning"
    assert scalar(engine, "select version from millrace.model_registry where status = 'champion'") == version


def test_two_champions(dsn: str, engine: Engine) -> None:
    first, second = promote_model(engine), promote_model(engine, threshold=0.45)
    do(
        engine,
        "drop index millrace.model_registry_one_champion",
        f"update millrace.model_registry set status = 'champion' where version = {first}",  # noqa: S608
    )
    assert mend(engine, dsn, "champions").count == 2
    assert scalar(engine, "select version from millrace.model_registry where status = 'champion'") == second
    assert scalar(engine, "select to_regclass('millrace.model_registry_one_champion') is not null")


def test_a_champion_that_nobody_decided_for(dsn: str, engine: Engine) -> None:
    first, second = promote_model(engine), promote_model(engine, threshold=0.45)
    for version, status in ((second, "archived"), (first, "champion")):
        do(engine, f"update millrace.model_registry set status = '{status}' where version = {version}")  # noqa: S608
    assert f"promote log_anomaly {second} " in mend(engine, dsn, "champions").command


def damaged(content: str) -> list[str]:
    return [
        "alter table millrace.model_artifacts drop constraint model_artifacts_check",
        f"update millrace.model_artifacts set {content} where digest ="  # noqa: S608
        " (select artifact_digest from millrace.model_registry where status = 'champion')",
    ]


def test_bytes_that_are_not_those_that_were_registered(dsn: str, engine: Engine) -> None:
    first = promote_model(engine)
    promote_model(engine, threshold=0.45)
    do(engine, *damaged("content = set_byte(content, 5000, (get_byte(content, 5000) + 1) % 256)"))
    assert "SHA-256" in mend(engine, dsn, "artifacts").message
    assert scalar(engine, "select version from millrace.model_registry where status = 'champion'") == first


def test_bytes_that_are_no_model(dsn: str, engine: Engine) -> None:
    promote_model(engine)
    do(
        engine,
        "alter table millrace.model_registry disable trigger user",
        "insert into millrace.model_artifacts (digest, content) values (encode(sha256('no model'), 'hex'), 'no model')",
    )
    promote_model(engine, threshold=0.45)
    do(
        engine,
        "update millrace.model_registry set artifact_digest = encode(sha256('no model'), 'hex')"
        " where status = 'champion'",
    )
    assert "not an archive" in mend(engine, dsn, "artifacts").message


def test_a_transaction_that_holds_up_the_claims(dsn: str, engine: Engine) -> None:
    with engine.connect() as other:
        insert_log(other)
        assert checks(engine, Patience()) == {}
        found = checks(engine)["horizon"]
        assert "of millrace has been open for 0 s" in found.message
        shell(found.command, dsn)
        assert "horizon" not in checks(engine)
        other.invalidate()


def test_a_restored_database(dsn: str, engine: Engine) -> None:
    do(engine, "update millrace.database_identity set system_identifier = 1")
    assert mend(engine, dsn, "identity").command == "millrace adopt"
    assert scalar(engine, "select count(*) from millrace.database_identity") == 2


@pytest.mark.usefixtures("scored")
def test_days_that_were_dropped_are_nothing_to_complain_of(engine: Engine) -> None:
    from mllib.jobs.maintenance import maintain
    from mllib.store import retention

    with transaction(engine) as conn:
        for table in retention.TABLES:
            retention.keep(conn, table, 5)
    done = maintain(engine, today=DAY + timedelta(days=6))
    assert done["dropped"] == {"logs": [str(DAY)], "predictions": [str(DAY)]}
    assert examine(engine, patience=AT_ONCE).findings == ()


def test_scoring_beside_it_raises_no_alarm(engine: Engine, scored: int) -> None:
    """Runs over windows move predictions to the history, shard by shard."""
    claimed, _ = scoring.claim(
        engine, DETECTOR, "again", window=scoring.Window(START, START + timedelta(hours=3)), shard_rows=100
    )
    for shard in claimed.shards:
        scoring.score_shard(engine, claimed.run.run_id, shard.shard)
        assert checks(engine, Patience()) == {}
    scoring.finish(engine, claimed.run.run_id)
    assert checks(engine) == {}
    assert claimed.run.run_id > scored
