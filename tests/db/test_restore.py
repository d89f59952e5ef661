"""A dump in a fresh cluster, whose transaction ids are far behind: nothing is lost there, nothing doubled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mllib.errors import RestoredElsewhere
from mllib.jobs import scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.reproducing import reproduce
from mllib.jobs.training import fit_candidate
from mllib.local.postgres import EmbeddedPostgres, binary
from mllib.store import identity
from mllib.store.database import engine_for, transaction
from mllib.store.lineage import lineage_of
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    predictions_hash,
    scalar,
    unscored,
)
from tests.db.shell import shell
from tests.db.test_cli import answer, complaint
from tests.factories import START

AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A cluster that has just been made."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("elsewhere"), fast=True) as postgres:
        yield postgres


def dump_and_restore(dsn: str, target: EmbeddedPostgres, folder: Path) -> str:
    """As the operations guide says it. Returns the connection string of the restored database."""
    name = f"restored_{folder.name}"
    admin = target.dsn("postgres")
    restored = target.dsn(name)
    shell(f"pg_dump --format=custom --file='{folder}/millrace.dump' '{dsn}'", dsn)
    shell(f'psql --dbname="{admin}" --command="create database \\"{name}\\""', dsn)
    shell(f'psql --dbname="{admin}" --command="create role millrace_analyst nologin" || true', dsn)
    subprocess.run(
        [binary("pg_restore"), "--exit-on-error", f"--dbname={restored}", f"{folder}/millrace.dump"], check=True
    )
    return restored


def next_id(engine: Engine) -> int:
    return int(scalar(engine, "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))


@pytest.mark.usefixtures("champion")
def test_scoring_goes_on_in_another_cluster(
    dsn: str, engine: Engine, elsewhere: EmbeddedPostgres, tmp_path: Path
) -> None:
    insert_logs(engine, 300)
    scoring.score(engine, DETECTOR)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:  # ids that the other has not seen
        conn.execute(text("call millrace.advance_transaction_ids(1000000, 30000)"))
    insert_logs(engine, 200, start=START + timedelta(hours=1), first=300)
    open_run, _ = scoring.claim(engine, DETECTOR, "cut off", shard_rows=60)
    scoring.score_shard(engine, open_run.run.run_id, open_run.shards[0].shard)
    insert_logs(engine, 50, start=START + timedelta(hours=2), first=500)  # not claimed when the dump is made

    restored = dump_and_restore(dsn, elsewhere, tmp_path)
    other = engine_for(restored)
    assert next_id(other) < next_id(engine)
    early = insert_logs(other, 20, start=START + timedelta(hours=3), first=550)  # before anybody has adopted it

    for arguments in (
        ("score", DETECTOR),
        ("score", DETECTOR, "--from", "2026-03-02T08:00", "--to", "2026-03-02T10:00"),
    ):
        assert "Run `millrace adopt`, then `millrace doctor`" in complaint(*arguments, dsn=restored)
    assert scalar(other, "select count(*) from millrace.scoring_runs") == 2
    (found, *_) = examine(other, patience=AT_ONCE).findings
    assert (found.check, found.command) == ("identity", "millrace adopt")

    adopted = answer("adopt", dsn=restored)
    assert adopted["adopted"] is True
    assert adopted["advanced"] > 20_000
    assert next_id(other) >= next_id(engine) - 100
    assert answer("adopt", dsn=restored) == {"adopted": False, "advanced": 0}

    # What was written in between looks old, at the latest when the open run is finished: the doctor finds it.
    insert_logs(other, 30, start=START + timedelta(hours=4), first=600)
    missed = 0
    for _ in range(5):
        findings = examine(other, patience=AT_ONCE).findings
        if not findings:
            break
        missed = max([missed, *(found.count for found in findings if found.check == "missed")])
        shell(findings[0].command, restored)
    assert missed == len(early)
    assert scalar(other, "select state from millrace.scoring_runs where run_key = 'cut off'") == "done"
    assert unscored(other) == []
    check_accounts(other)
    assert examine(other, patience=AT_ONCE).findings == ()
    assert scalar(other, "select count(*) from millrace.predictions") == 300 + 200 + 50 + 20 + 30
    other.dispose()


@pytest.mark.usefixtures("champion")
def test_both_clusters_say_the_same_of_the_same_rows(
    dsn: str, engine: Engine, elsewhere: EmbeddedPostgres, tmp_path: Path
) -> None:
    insert_logs(engine, 200)
    scoring.score(engine, DETECTOR)
    insert_logs(engine, 200, first=200, start=START + timedelta(minutes=3))
    restored = dump_and_restore(dsn, elsewhere, tmp_path)
    other = engine_for(restored)
    assert identity.adopt(other) is not None
    for one in (engine, other):
        assert scoring.score(one, DETECTOR).scored == 200
        check_accounts(one)
    assert predictions_hash(engine) == predictions_hash(other)
    other.dispose()


def test_ids_that_fell_behind_are_seen_without_the_name_of_the_cluster(engine: Engine, champion: int) -> None:
    """Where PostgreSQL does not tell the cluster's name, the claims themselves give it away."""
    insert_logs(engine, 10)
    scoring.score(engine, DETECTOR)
    with transaction(engine) as conn:
        ahead = next_id(engine) + 5_000
        conn.execute(text("update millrace.database_identity set system_identifier = null"))
        conn.execute(text(f"update millrace.scoring_runs set snapshot = '{ahead}:{ahead}:'"))  # noqa: S608
        assert identity.identity(conn) == identity.Identity(moved=False, behind=True)
    with pytest.raises(RestoredElsewhere):
        scoring.score(engine, DETECTOR)
    heard: list[tuple[int, int]] = []
    advanced = identity.adopt(engine, progress=lambda done, all_: heard.append((done, all_)))
    assert advanced is not None
    assert heard[-1] == (advanced, advanced)
    insert_logs(engine, 5, first=10)
    assert scoring.score(engine, DETECTOR).claimed == 5
    assert champion == 1


def test_a_copy_in_the_same_cluster_is_at_home(dsn: str, engine: Engine) -> None:
    """Every test's database is one."""
    assert identity.adopt(engine) is None
    assert answer("adopt", dsn=dsn) == {"adopted": False, "advanced": 0}


def test_a_version_is_trained_again_in_another_cluster(
    shop: Engine, elsewhere: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Rows and snapshot carry the same ids there, and what is written after `adopt` is newer than both."""
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    dsn = shop.url.set(drivername="postgresql").render_as_string(hide_password=False)
    restored = dump_and_restore(dsn, elsewhere, tmp_path)
    other = engine_for(restored)
    assert reproduce(other, DETECTOR, version).exact
    identity.adopt(other)
    with transaction(other) as conn:
        start = lineage_of(conn, DETECTOR, version).train.start
    insert_logs(other, 100, start=start)
    assert reproduce(other, DETECTOR, version).exact
    other.dispose()
