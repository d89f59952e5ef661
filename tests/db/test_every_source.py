"""Every source goes the whole way that logs go: in, claimed, scored, labelled, judged, scored again, kept, examined."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import mllib.detectors
from mllib.jobs import labelling, overview, rescoring, scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.judging import train
from mllib.jobs.maintenance import maintain
from mllib.sources import source
from mllib.store import identity, retention
from mllib.store import rows as row_store
from mllib.store.backlog import hours_without_run
from mllib.store.database import transaction
from mllib.store.freshness import freshness
from mllib.types import Verdict, Window
from tests.db.factories import rows, scalar, write_lines
from tests.db.scoring_factories import insert_logs, predictions_hash
from tests.db.source_factories import KINDS, Kind, bad
from tests.factories import START

ROWS = 4_000
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def tiny_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny detectors are found beside the real ones."""
    folder = Path(__file__).parent.parent / "tiny" / "detectors"
    monkeypatch.setattr(mllib.detectors, "__path__", [*mllib.detectors.__path__, str(folder)])


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def trained(engine: Engine, kind: Kind, tmp_path: Path) -> Engine:
    """A database with ROWS labelled rows of the source, and a champion that has scored none of them."""
    kind.load(engine, tmp_path, ROWS)
    assert train(engine, kind.detector, by="a test").verdict is Verdict.PROMOTE
    return engine


def predicted(engine: Engine, kind: Kind) -> int:
    """Rows of the kind with a prediction; none has two, and no prediction is of another row."""
    of_form = " and r.form is not distinct from d.form" if kind.table == "network_flows" else ""
    with_row = scalar(
        engine,
        "select count(*) from millrace.predictions as p join millrace.detectors as d using (detector_id)"  # noqa: S608
        f" join millrace.{kind.table} as r on p.ts = r.ts and p.log_id = r.row_id where d.name = :name{of_form}",
        name=kind.detector,
    )
    assert with_row == scalar(
        engine,
        "select count(distinct log_id) from millrace.predictions join millrace.detectors using (detector_id)"
        " where name = :name",
        name=kind.detector,
    )
    return int(with_row)


def test_from_the_file_to_the_verdict(trained: Engine, kind: Kind) -> None:
    report = scoring.score(trained, kind.detector)
    assert (report.claimed, report.scored, predicted(trained, kind)) == (ROWS, ROWS, ROWS)
    anomalies = sum(map(bad, range(ROWS)))
    assert 0.9 * anomalies <= report.anomalies <= anomalies
    assert scoring.score(trained, kind.detector).claimed == 0
    again = train(trained, kind.detector, by="a test")
    assert (again.verdict, again.champion_f1) == (Verdict.REFUSE, 1.0)
    assert again.holdout_rows > 500
    segments = scalar(
        trained, "select figures -> 'segments' from millrace.promotion_decisions order by decision_id desc limit 1"
    )
    assert {segment["dimension"] for segment in segments} == set(source(kind.source).segments)
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_frames_have_the_schema_of_the_source(trained: Engine, kind: Kind) -> None:
    found = source(kind.source)
    with transaction(trained) as conn:
        window = Window(START + 10 * kind.step, START + 40 * kind.step)
        selection = row_store.RowsInWindow(window=window, current=row_store.current_snapshot(conn))
        (frame,) = row_store.stream(conn, found, selection, [window], context=5 * kind.step)
    assert dict(frame.schema) == found.schema
    assert frame["claimed"].to_list() == [False] * 5 + [True] * 30
    assert frame["ts"].to_list() == [START + number * kind.step for number in range(5, 40)]
    dropped = {column.name for column in found.columns if column.claimed_only}
    for column in set(frame.columns) - {"evidence", "branch", "workflow", "language", "src_ip", "dst_ip", "dst_port"}:
        known = frame.filter("claimed")[column].drop_nulls().len()
        assert known == 30 or column == "Flow Bytes/s", column
    assert not dropped or frame.filter(~frame["claimed"])[sorted(dropped)].null_count().row(0) == (5,) * len(dropped)


def test_scored_again_by_a_window_and_by_a_plan(trained: Engine, kind: Kind) -> None:
    scoring.score(trained, kind.detector)
    before = predictions_hash(trained)
    window = Window(START, START + 1_000 * kind.step)
    assert scoring.score(trained, kind.detector, window=window).scored == 1_000
    plan = rescoring.plan(trained, kind.detector, window, run_key="k", by="a test")
    assert (plan.rows, plan.changes) == (1_000, 0)
    assert rescoring.execute(trained, plan.plan_id, run_key="k").scored == 1_000
    assert predictions_hash(trained) == before
    assert scalar(trained, "select count(*) from millrace.predictions_history") == 2_000
    assert predicted(trained, kind) == ROWS
    with transaction(trained) as conn:
        end = START + 1_000 * kind.step + HOUR
        missing = hours_without_run(conn, kind.detector, Window(START, end))
    inside = range(1_000, min(ROWS, 1_000 + int(HOUR / kind.step)))
    assert sum(hour.rows for hour in missing) >= len(inside)
    assert all(hour.window.end > window.end for hour in missing)
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_any_cut_gives_the_same_predictions(trained: Engine, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring.score(trained, kind.detector)
    before = predictions_hash(trained)
    for chunk, cuts in ((7, (0, 333, 2_500, ROWS)), (1_000, (0, 1_999, ROWS))):
        monkeypatch.setitem(row_store.stream.__kwdefaults__, "chunk_rows", chunk)  # type: ignore[arg-type]
        for first, last in reversed(list(pairwise(cuts))):
            window = Window(START + first * kind.step, START + last * kind.step)
            claimed, _ = scoring.claim(trained, kind.detector, f"{chunk} {first}", window=window, shard_rows=180)
            assert len(claimed.shards) > 1
            for shard in reversed(claimed.shards):
                scoring.score_shard(trained, shard.run_id, shard.shard)
            scoring.publish(trained, claimed.run.run_id)
        assert predictions_hash(trained) == before


def test_writers_and_a_scorer_at_the_same_time(trained: Engine, kind: Kind) -> None:
    """Transactions that take their ids early and commit late, some of them never."""
    scoring.score(trained, kind.detector)
    committed: list[int] = []
    until = time.monotonic() + 4

    def write(seed: int) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            with trained.connect() as conn:
                ids = kind.insert(conn, 5, start=START + seed * HOUR, step=timedelta(seconds=number))
                time.sleep((seed * number % 5) * 0.1)
                ids += kind.insert(conn, 5, start=START - seed * HOUR, step=timedelta(seconds=number))
                if (seed + number) % 5:
                    conn.commit()
                    committed.extend(ids)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        scoring.score(trained, kind.detector)
    scoring.score(trained, kind.detector)
    assert len(committed) > 100
    assert predicted(trained, kind) == ROWS + len(committed)
    found = rows(trained, "select log_id from millrace.predictions where log_id = any(:ids)", ids=committed)
    assert {row_id for (row_id,) in found} == set(committed)
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_freshness_and_overview(trained: Engine, kind: Kind) -> None:
    def waiting() -> int | None:
        with transaction(trained) as conn:
            return {row.detector: row.rows_waiting for row in freshness(conn)}[kind.detector]

    assert waiting() == ROWS
    scoring.score(trained, kind.detector)
    assert waiting() == 0
    with transaction(trained) as conn:
        kind.insert(conn, 7, start=START, step=timedelta(seconds=1))
        insert_logs(conn, 3)  # is no row of this source
    assert waiting() == 7
    assert {finding.check for finding in examine(trained, patience=AT_ONCE).findings} == {"freshness"}
    said = overview.summary(trained, detector=kind.detector)
    assert (said["rows"], said["labels"], said["scored"]) == (ROWS + 7, ROWS, ROWS)
    assert len(said["top"]) > 0
    assert said["top"][0]["severity"] != "normal"


def test_retention_keeps_what_waits_and_what_is_labelled(trained: Engine, kind: Kind) -> None:
    old = (START - timedelta(days=9)).replace(hour=5)
    with transaction(trained) as conn:
        ids = kind.insert(conn, 50, start=old, step=timedelta(seconds=1))
        conn.execute(
            text(
                "insert into millrace.labels (subject, ts, row_id, label, origin)"  # noqa: S608  our own words
                f" select '{kind.table}', ts, row_id, '0', 'analyst' from millrace.{kind.table}"
                " where row_id = any(:ids)"
            ),
            {"ids": ids[:4]},
        )
        for table in (kind.table, "predictions"):
            retention.keep(conn, table, 3)
    maintain(trained, today=START.date())  # makes the partition of the old day
    day = str(old.date())
    assert maintain(trained, today=START.date())["unscored"] == {kind.table: [day]}
    scoring.score(trained, kind.detector)
    done = maintain(trained, today=START.date())
    assert done["dropped"] == {kind.table: [day], "predictions": [day]}
    assert done["kept_rows"] == 8
    left = f"select count(*) from millrace.{kind.table} where row_id = any(:ids)"  # noqa: S608
    assert scalar(trained, left, ids=ids) == 4
    assert predicted(trained, kind) == ROWS + 4
    assert maintain(trained, today=START.date())["partitions_for_strays"] == 0
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_the_doctor_finds_rows_that_are_gone_and_rows_that_were_missed(trained: Engine, kind: Kind) -> None:
    scoring.score(trained, kind.detector)
    with transaction(trained) as conn:
        conn.execute(text(f"delete from millrace.{kind.table} where row_id % 10 = 0"))  # noqa: S608
        conn.execute(text("delete from millrace.predictions where log_id % 10 = 1"))
    found = {finding.check: finding.count for finding in examine(trained, patience=AT_ONCE).findings}
    assert found["predictions_without_row"] == found["labels"] == found["missed"] == ROWS // 10
    maintain(trained, tidy=True)
    scoring.score(trained, kind.detector, window=Window(START, START + ROWS * kind.step + HOUR))
    assert examine(trained, patience=AT_ONCE).findings == ()
    assert scalar(trained, "select count(*) from millrace.labels_put_away") == ROWS // 10


def test_verdicts_out_of_a_file_find_their_row(engine: Engine, kind: Kind, tmp_path: Path) -> None:
    kind.load(engine, tmp_path, 50)
    name = scalar(engine, f"select source_id from millrace.{kind.table} order by ts limit 1")  # noqa: S608
    path = write_lines(tmp_path / "verdicts.csv", "source,id,label", f"rows,{name},odd")
    assert labelling.label(engine, path, by="somebody") == 1
    assert rows(
        engine,
        f"select l.subject, l.label from millrace.labels_current as l join millrace.{kind.table} using (ts, row_id)"  # noqa: S608
        " where source_id = :name",
        name=name,
    ) == [(kind.table, "odd")]


def test_a_restored_database_counts_the_ids_of_every_table(engine: Engine, kind: Kind) -> None:
    with transaction(engine) as conn:
        here = int(conn.execute(text("select pg_snapshot_xmax(pg_current_snapshot())::text")).scalar_one())
        (row_id,) = kind.insert(conn, 1, start=START, step=timedelta(0))
        conn.execute(
            text(f"update millrace.{kind.table} set ingest_xid = cast(:xid as xid8) where row_id = :row_id"),  # noqa: S608
            {"xid": str(here + 500), "row_id": row_id},
        )
        conn.execute(text("update millrace.database_identity set system_identifier = 1"))
    assert (identity.adopt(engine) or 0) > 400


def test_forms_of_one_table_keep_out_of_each_others_way(engine: Engine, tmp_path: Path) -> None:
    connections, flows = KINDS["tiny_connections"], KINDS["tiny_flows"]
    connections.load(engine, tmp_path, ROWS, "connections")
    flows.load(engine, tmp_path, ROWS, "flows")
    for kind in (connections, flows):
        report = train(engine, kind.detector, by="a test")
        assert (report.verdict, report.candidate_f1) == (Verdict.PROMOTE, 1.0)
    assert scoring.score(engine, connections.detector).scored == ROWS
    with transaction(engine) as conn:
        waiting = {row.detector: row.rows_waiting for row in freshness(conn)}
    assert waiting == {"tiny_connections": 0, "tiny_flows": ROWS}
    assert predicted(engine, flows) == 0
    scoring.score(engine, flows.detector)
    assert (predicted(engine, connections), predicted(engine, flows)) == (ROWS, ROWS)
    assert examine(engine, patience=AT_ONCE).findings == ()


def test_views_show_classes_where_there_are_any(engine: Engine, tmp_path: Path) -> None:
    for name, view, columns in (
        ("tiny_flows", "flow_predictions", "class, confidence is not null, protocol"),
        ("tiny_runs", "pipeline_predictions", "class, confidence is not null, repository"),
    ):
        kind = KINDS[name]
        kind.load(engine, tmp_path, ROWS, name)
        train(engine, name, by="a test")
        scoring.score(engine, name)
        scoring.score(engine, name, window=Window(START, START + 100 * kind.step))
        found = rows(engine, f"select is_anomaly, {columns} from analytics.{view} where detector = '{name}'")  # noqa: S608
        assert len(found) == ROWS
        assert {(row[0], row[1], row[2]) for row in found} == (
            {(True, "DoS Hulk", True), (False, "BENIGN", True)}
            if name == "tiny_flows"
            else {(True, None, False), (False, None, False)}
        )
    history = rows(engine, "select class, count(*) from millrace.predictions_history group by 1 order by 1 nulls last")
    assert [label for label, _ in history] == ["BENIGN", "DoS Hulk", None]
    assert scalar(engine, "select count(*) from analytics.predictions_current") == 0


def test_ids_come_from_one_sequence(engine: Engine) -> None:
    with transaction(engine) as conn:
        ids = insert_logs(conn, 2)
        for kind in KINDS.values():
            ids += kind.insert(conn, 2, start=datetime(2026, 3, 2, tzinfo=UTC), step=timedelta(seconds=1))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
