"""A version trained again from its lineage comes out the same, whatever happened since; and if not, it is said why."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput
from mllib.jobs.maintenance import maintain
from mllib.jobs.reproducing import reproduce
from mllib.jobs.training import TrainingOptions, fit_candidate
from mllib.reproduction import Reproduction
from mllib.store import retention
from mllib.store.database import transaction
from tests.db.factories import add_versions, rows, scalar
from tests.db.scoring_factories import DETECTOR, insert_logs
from tests.db.test_cli import answer, millrace
from tests.db.training_factories import END, change, make_champion_like, run, stored_model, version_row

STATE = """
    select (select jsonb_agg(to_jsonb(m) order by m.version) from millrace.model_registry as m)::text
        || (select count(*) from millrace.model_artifacts) || (select count(*) from millrace.promotion_decisions)
"""


def trained(engine: Engine, **options: Any) -> int:
    return fit_candidate(engine, DETECTOR, trained_by="test", options=TrainingOptions(**options))


def again(engine: Engine, version: int) -> Reproduction:
    """Trains it again, and makes sure that the registry is as it was."""
    before = scalar(engine, STATE)
    found = reproduce(engine, DETECTOR, version)
    assert scalar(engine, STATE) == before
    return found


def tamper(engine: Engine, statement: str, **binds: Any) -> None:
    """As only the owner of the tables can: without the triggers."""
    with transaction(engine) as conn:
        conn.execute(text("set local session_replication_role = replica"))
        assert conn.execute(text(statement), binds).rowcount > 0


def forget_snapshot(engine: Engine, version: int) -> None:
    """Makes a version one from before snapshots and hashes of the content were kept."""
    tamper(
        engine,
        "update millrace.model_registry set snapshot = null, label_counts = label_counts"
        " #- '{train,content_hash}' #- '{validation,labels_hash}' where version = :v",
        v=version,
    )


def test_at_once(shop: Engine) -> None:
    version = trained(shop, seed=7)
    found = again(shop, version)
    row = version_row(shop, version)
    assert (found.verdict, found.reproduced, found.exact) == ("reproduced, bit for bit", True, True)
    assert found.now is not None
    assert found.reasons == ()
    assert found.scores is None
    assert (found.now.artifact_digest, found.now.data_hash) == (row["artifact_digest"], row["data_hash"])
    assert found.now.content_hash == row["label_counts"]["train"]["content_hash"]
    assert (found.now.training_rows, found.now.threshold) == (row["training_rows"], row["threshold"])


def test_after_late_rows_later_labels_and_another_champion(shop: Engine) -> None:
    version = run(shop).version
    row = version_row(shop, version)
    windows = [row[f"{name}_window"] for name in ("train", "validation", "holdout")]
    for number, window in enumerate(windows):
        span = window.upper - window.lower
        insert_logs(shop, 300, start=window.lower, step=span / 300, first=1_000 * number)
        insert_logs(shop, 30, start=window.lower - timedelta(minutes=4), first=5_000 + 1_000 * number)
    # Verdicts of all kinds on every second row, late ones and old ones alike.
    for origin in ("import", "analyst"):
        change(
            shop,
            "insert into millrace.labels (ts, row_id, label, origin)"
            " select ts, log_id, '1', :origin from millrace.logs where log_id % 2 = 0",
            origin=origin,
        )
    make_champion_like(shop, version, stored_model(shop, version).with_threshold(0.9))
    found = again(shop, version)
    assert (found.verdict, found.reasons) == ("reproduced, bit for bit", ())
    other = trained(shop)
    assert version_row(shop, other)["artifact_digest"] != row["artifact_digest"]
    assert again(shop, other).exact


def test_a_threshold_by_the_alert_budget(shop: Engine) -> None:
    change(shop, "delete from millrace.labels")
    version = trained(shop, alerts_per_day=20, label_delay=timedelta(hours=1), train_days=5)
    change(shop, "insert into millrace.labels (ts, row_id, label, origin) select ts, log_id, '1', 'import' from"
           " millrace.logs where log_id % 9 = 0")  # fmt: skip
    assert again(shop, version).exact


def test_a_training_of_the_past(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, as_of=END - timedelta(days=3), trained_by="test")
    assert again(shop, version).exact


def test_a_row_that_somebody_changed(shop: Engine) -> None:
    version = trained(shop)
    window = version_row(shop, version)["train_window"]
    (log_id,) = rows(
        shop,
        "select log_id from millrace.logs where ts >= :a and ts < :b order by ts offset 777 limit 1",
        a=window.lower,
        b=window.upper,
    )[0]
    tamper(shop, "update millrace.logs set message = message || ' ' where log_id = :id", id=log_id)
    found = again(shop, version)
    assert (found.verdict, found.same_rows) == ("not reproduced", False)
    assert found.now is not None
    assert found.now.data_hash == found.then.data_hash
    assert "what they say was changed since" in found.reasons[0]
    assert "somebody changed rows by hand" in found.reasons[1]
    tamper(shop, "delete from millrace.logs where log_id = :id", id=log_id)
    found = again(shop, version)
    gone = found.then.training_rows - 1
    assert f"not those of then: {gone + 1:,} then, {gone:,} now" in found.reasons[0]
    assert not found.reproduced


def test_a_label_that_somebody_changed(shop: Engine) -> None:
    version = trained(shop)
    window = version_row(shop, version)["validation_window"]
    tamper(
        shop,
        "update millrace.labels set label = case label when '0' then '1' else '0' end where ts >= :a and ts < :b",
        a=window.lower,
        b=window.upper,
    )
    found = again(shop, version)
    assert (found.reproduced, found.same_rows) == (False, True)
    assert "labels of the validation slice" in found.reasons[0]
    assert found.scores is not None
    # The trees are the same ones; the weights and the threshold, which validation chooses, need not be.
    assert found.scores.rows > found.scores.verdicts > 0


def test_days_that_retention_dropped(shop: Engine) -> None:
    version = trained(shop)
    first = version_row(shop, version)["train_window"].lower.date()
    # Without labels and scores nothing holds the rows.
    change(shop, "delete from millrace.labels where ts < :until", until=END - timedelta(days=9))
    with transaction(shop) as conn:
        retention.keep(conn, "logs", 11)
    dropped = maintain(shop, today=END.date())["dropped"]["logs"]
    assert len(dropped) > 1
    found = again(shop, version)
    assert not found.reproduced
    assert dropped[0] == str(first)
    assert f"Retention has dropped the days {', '.join(dropped)}, but for" in found.reasons[1]
    # The labels that went were learned from, so they are the third reason.
    assert "labels of the validation slice, or those that it learned from" in found.reasons[2]
    assert len(found.reasons) == 3
    change(shop, "delete from millrace.labels")
    with transaction(shop) as conn:
        retention.keep(conn, "logs", 1)
    maintain(shop, today=END.date() + timedelta(days=30))
    found = again(shop, version)
    assert (found.now, found.verdict) == (None, "not reproduced")
    assert "cannot be trained on" in found.reasons[0]
    assert "days from" in found.reasons[1]


def test_another_seed_other_libraries_and_another_revision_are_named(shop: Engine) -> None:
    version = trained(shop)
    tamper(
        shop,
        "update millrace.model_registry set seed = 1, code_revision = repeat('ab', 20), library_versions ="
        " library_versions || jsonb_build_object('scikit-learn', '0.1') where version = :v",
        v=version,
    )
    found = again(shop, version)
    said = " ".join(found.reasons)
    assert (found.reproduced, found.same_rows) == (False, True)
    assert "the seed is 1, but the options of the training say 42" in said
    assert "scikit-learn 0.1 then, " in said
    assert "numpy" not in said
    assert "abababababab then, " in said
    assert found.scores is not None
    assert found.scores.largest is not None
    assert found.scores.largest > 1e-3


def test_the_same_model_in_other_bytes_counts_as_reproduced(shop: Engine) -> None:
    version = trained(shop)
    model = stored_model(shop, version)
    nearly = model.with_threshold(model.threshold + 1e-12)
    beside = make_champion_like(shop, version, nearly)
    tamper(
        shop,
        "update millrace.model_registry as m set artifact_digest = o.artifact_digest, threshold = o.threshold"
        " from millrace.model_registry as o where m.version = :v and o.version = :o",
        v=version,
        o=beside,
    )
    found = again(shop, version)
    assert (found.exact, found.verdict) == (False, "reproduced, same scores to 1e-9")
    assert found.scores is not None
    assert found.scores.rows > 1_000
    assert "Nothing on record explains it" in found.reasons[0]


def test_a_version_without_snapshot_is_found_by_its_hash(shop: Engine) -> None:
    version = trained(shop)
    window = version_row(shop, version)["train_window"]
    forget_snapshot(shop, version)
    found = again(shop, version)
    assert (found.exact, found.snapshot_kept) == (True, False)
    insert_logs(shop, 50, start=window.lower)
    assert again(shop, version).exact
    tamper(shop, "delete from millrace.logs where log_id = (select min(log_id) from millrace.logs where ts >= :a)",
           a=window.lower)  # fmt: skip
    with pytest.raises(BadInput, match=r"no rows match the hash on record, because rows .* added or deleted since"):
        reproduce(shop, DETECTOR, version)


def test_what_has_no_training_on_record(engine: Engine) -> None:
    (version,) = add_versions(engine)
    with pytest.raises(BadInput, match="put into the registry by hand"):
        reproduce(engine, DETECTOR, version)
    with pytest.raises(BadInput, match=r"has no version 9\. `millrace models log_anomaly`"):
        reproduce(engine, DETECTOR, 9)


def test_a_restored_database_is_named_as_a_cause(shop: Engine) -> None:
    version = trained(shop)
    window = version_row(shop, version)["train_window"]
    with transaction(shop) as conn:
        conn.execute(text("update millrace.database_identity set system_identifier = 1"))
        # What is written before `adopt` has ids that the snapshot takes for old ones.
        conn.execute(text("set local session_replication_role = replica"))
        conn.execute(
            text("insert into millrace.logs (ts, message, ingest_xid) values (:ts, 'new', '3')"), {"ts": window.lower}
        )
    found = again(shop, version)
    assert not found.reproduced
    assert "restored from another cluster" in found.reasons[1]
    assert "`millrace adopt`" in found.reasons[1]
    change(shop, "insert into millrace.database_identity (system_identifier) values (millrace.system_identifier())")
    assert "adopted there on" in again(shop, version).reasons[1]


def test_the_command(shop: Engine) -> None:
    dsn = shop.url.render_as_string(hide_password=False)
    version = run(shop).version
    told = answer("reproduce", DETECTOR, f"{version}", dsn=dsn)
    assert (told["ok"], told["exact"], told["verdict"]) == (True, True, "reproduced, bit for bit")
    assert told["then"]["artifact_digest"] == told["now"]["artifact_digest"]
    said = millrace("reproduce", DETECTOR, f"{version}", dsn=dsn)
    assert said.returncode == 0
    assert said.stdout.startswith(f"{DETECTOR} version {version}: reproduced, bit for bit.\n")
    assert "not the same" not in said.stdout
    tamper(shop, "update millrace.logs set status_code = 418")
    failed = millrace("reproduce", DETECTOR, f"{version}", "--json", dsn=dsn)
    assert failed.returncode == 1
    assert "- The training rows are the same ones by time and id" in failed.stdout
    assert "Traceback" not in failed.stderr
    told = json.loads(failed.stdout.splitlines()[-1])
    assert (told["ok"], told["now"]["data_hash"]) == (False, told["then"]["data_hash"])
    assert told["scores"]["rows"] > 0
