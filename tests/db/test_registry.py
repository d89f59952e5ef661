"""The registry: versions that never change, one champion whatever races or dies, every verdict kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from mllib.errors import BadInput, DatabaseUnavailable, PromotionConflict
from mllib.jobs import judging
from mllib.store import registry
from mllib.store.database import driver, transaction
from mllib.types import ModelStatus, Verdict
from tests.db.factories import (
    DETECTOR,
    add_versions,
    champion,
    champion_at,
    decide,
    new_decision,
    new_version,
    promote_in_turn,
    rows,
    scalar,
    statuses,
)
from tests.factories import START

RACERS = 50


def race(racers: int, job: Callable[[int], object]) -> list[object]:
    """Runs the jobs at once, and gives the result or the exception of each."""
    start = Barrier(racers)

    def run(number: int) -> object:
        start.wait()
        try:
            return job(number)
        except Exception as error:  # noqa: BLE001  it is the outcome
            return error

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(run, range(racers)))


def test_a_version_comes_back_as_it_was_stored(engine: Engine) -> None:
    new = new_version(artifact=b"bytes of a model", threshold=0.25)
    with transaction(engine) as conn:
        version = registry.add(conn, new)
        stored = registry.get(conn, DETECTOR, version)
        assert registry.artifact(conn, DETECTOR, version) == (b"bytes of a model", new.artifact_digest)
    assert (stored.status, stored.threshold, stored.as_of) == (ModelStatus.CANDIDATE, 0.25, new.as_of)
    assert (stored.train, stored.validation, stored.holdout) == (new.train, None, new.holdout)


def test_an_unknown_version_is_refused_with_the_way_to_a_list(engine: Engine) -> None:
    with transaction(engine) as conn:
        for look_up in (registry.get, registry.artifact):
            with pytest.raises(BadInput, match=rf"no version 7.*millrace models {DETECTOR}"):
                look_up(conn, DETECTOR, 7)


def test_versions_are_numbered_without_gap_under_concurrency(engine: Engine) -> None:
    assert sorted(race(16, lambda _: add_versions(engine)[0])) == list(range(1, 17))


def test_versions_of_detectors_are_numbered_apart(engine: Engine) -> None:
    add_versions(engine, 2)
    with transaction(engine) as conn:
        conn.execute(text("insert into millrace.detectors (name, source) values ('another', 'logs')"))
        assert registry.add(conn, new_version(detector="another")) == 1


def test_a_digest_that_is_not_that_of_the_bytes_is_refused(engine: Engine) -> None:
    wrong = hashlib.sha256(b"other bytes").hexdigest()
    with pytest.raises(IntegrityError, match="model_artifacts_check"):
        add_versions(engine, artifact=b"a model", artifact_digest=wrong)
    assert scalar(engine, "select count(*) from millrace.model_registry") == 0


def test_a_flipped_byte_cannot_be_stored_later_either(engine: Engine) -> None:
    add_versions(engine)
    with pytest.raises(IntegrityError, match="model_artifacts_check"), transaction(engine) as conn:
        conn.execute(text("update millrace.model_artifacts set content = set_byte(content, 0, 0)"))


def test_no_column_of_a_version_but_its_status_ever_changes(engine: Engine) -> None:
    add_versions(engine)
    columns = rows(
        engine,
        "select column_name, data_type from information_schema.columns"
        " where table_schema = 'millrace' and table_name = 'model_registry' and column_name <> 'status'",
    )
    other = {
        "text": "'x'", "jsonb": "'[1]'", "ARRAY": "'{x}'", "smallint": "7", "integer": "7", "bigint": "7",
        "double precision": "7", "tstzrange": "'[2020-01-01,2020-01-02)'", "timestamp with time zone": "'2020-01-01'",
        "pg_snapshot": "'7:7:'",
    }  # fmt: skip
    assert len(columns) > 15
    for name, kind in columns:
        with pytest.raises(DBAPIError, match="immutable but for its status"), transaction(engine) as conn:
            conn.execute(text(f"update millrace.model_registry set {name} = {other[kind]}"))  # noqa: S608
    with pytest.raises(DBAPIError, match="never deleted"), transaction(engine) as conn:
        conn.execute(text("delete from millrace.model_registry"))
    with transaction(engine) as conn:
        conn.execute(text("update millrace.model_registry set status = 'archived'"))


def test_the_database_itself_refuses_a_second_champion(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    promote_in_turn(engine, first)
    with pytest.raises(IntegrityError, match="model_registry_one_champion"), transaction(engine) as conn:
        conn.execute(text("update millrace.model_registry set status = 'champion' where version = :v"), {"v": second})


@pytest.mark.parametrize("with_champion", [True, False], ids=["against one champion", "against none"])
def test_of_fifty_promotions_at_once_one_wins(dsn: str, engine: Engine, with_champion: bool) -> None:
    old = add_versions(engine)[0] if with_champion else None
    if old:
        promote_in_turn(engine, old)
    candidates = add_versions(engine, RACERS)
    crowded = create_engine(engine.url, pool_size=RACERS, max_overflow=0)
    try:
        outcomes = race(RACERS, lambda number: decide(crowded, candidates[number], old))
    finally:
        crowded.dispose()
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {int: 1, PromotionConflict: RACERS - 1}, outcomes
    winner = champion(engine)
    assert outcomes[candidates.index(winner)] == scalar(
        engine, "select max(decision_id) from millrace.promotion_decisions"
    )
    assert Counter(statuses(engine).values()) == Counter(
        {"champion": 1, "candidate": RACERS - 1} | ({"archived": 1} if old else {})
    )
    assert scalar(engine, "select count(*) from millrace.promotion_decisions") == 1 + (old is not None)


def test_a_conflict_says_who_is_champion_and_what_to_do(engine: Engine) -> None:
    first, second, late = add_versions(engine, 3)
    promote_in_turn(engine, first, second)
    with pytest.raises(
        PromotionConflict, match=r"judged against version 1, but the champion is version 2 now\. Nothing"
    ):
        decide(engine, late, first)
    with pytest.raises(PromotionConflict, match=r"judged against no champion, .* --against current --reason"):
        decide(engine, late, None)
    assert statuses(engine) == {first: "archived", second: "champion", late: "candidate"}


def test_a_connection_killed_at_any_moment_of_a_promotion_leaves_one_champion(engine: Engine) -> None:
    old, new = add_versions(engine, 2)
    promote_in_turn(engine, old)
    moments = 0
    while not _promote_killed_at(engine, moments, new, old):
        assert statuses(engine) == {old: "champion", new: "candidate"}, f"killed at moment {moments}"
        assert scalar(engine, "select count(*) from millrace.promotion_decisions") == 1
        moments += 1
    assert moments >= 7  # the statements of a promotion, and its commit
    assert statuses(engine) == {old: "archived", new: "champion"}


def _promote_killed_at(engine: Engine, moment: int, candidate: int, old: int) -> bool:
    """Promotes on a connection that is ended before its n-th statement or commit; true when nothing was left to end."""
    victim = create_engine(engine.url)
    seen = 0

    def end_it(conn: Connection, *_: object) -> None:
        nonlocal seen
        if seen == moment:
            pid = driver(conn).info.backend_pid
            assert scalar(engine, "select pg_terminate_backend(:pid, 5000)", pid=pid)
        seen += 1

    try:
        with victim.connect() as conn:
            conn.execute(text("select 1"))  # so that what SQLAlchemy asks of a first connection is behind us
        event.listen(victim, "before_cursor_execute", end_it)
        event.listen(victim, "commit", end_it)
        decide(victim, candidate, old)
    except DatabaseUnavailable:
        return False
    finally:
        victim.dispose()
    return True


def test_a_refusal_marks_the_candidate_and_too_little_evidence_does_not(engine: Engine) -> None:
    refused, open_still = add_versions(engine, 2)
    decide(engine, refused, None, verdict=Verdict.REFUSE)
    decide(engine, open_still, None, verdict=Verdict.NOT_ENOUGH_EVIDENCE)
    assert statuses(engine) == {refused: "refused", open_still: "candidate"}
    assert champion(engine) is None


def test_a_refusal_that_comes_late_does_not_take_the_champion_down(engine: Engine) -> None:
    """A person promotes a candidate by hand while the gate is still scoring it."""
    (version,) = add_versions(engine)
    judging.promote(engine, DETECTOR, version, reason="we need one now", by="a person")
    decide(engine, version, None, verdict=Verdict.REFUSE)
    assert champion(engine) == version
    verdicts = rows(engine, "select verdict from millrace.promotion_decisions order by decision_id")
    assert verdicts == [("promote",), ("refuse",)]


def test_champion_at_goes_by_as_of_and_keeps_both_times(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    before = datetime.now(UTC)
    decide(engine, first, None, as_of=START)
    decide(engine, second, first, as_of=START + timedelta(days=7))
    second_us = timedelta(microseconds=1)
    assert champion_at(engine, START - second_us) is None
    assert champion_at(engine, START) == first
    assert champion_at(engine, START + timedelta(days=7) - second_us) == first
    assert champion_at(engine, START + timedelta(days=7)) == second
    assert champion_at(engine, START, "another") is None
    as_of, decided_at = rows(engine, "select max(as_of), min(decided_at) from millrace.promotion_decisions")[0]
    assert as_of == START + timedelta(days=7)
    assert decided_at >= before


def test_champion_at_ignores_refusals(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    decide(engine, first, None, as_of=START)
    decide(engine, second, first, as_of=START + timedelta(days=7), verdict=Verdict.REFUSE)
    assert champion_at(engine, START + timedelta(days=8)) == first


def test_the_list_of_versions_shows_the_last_verdict(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    decide(engine, first, None, candidate_f1=0.5)
    decide(engine, second, first, verdict=Verdict.REFUSE, candidate_f1=0.25, champion_f1=0.5, reason="F1 falls")
    with transaction(engine) as conn:
        listed = registry.versions(conn, DETECTOR)
        assert registry.versions(conn) == listed
        assert registry.versions(conn, "another") == []
    assert [(line["version"], line["verdict"], line["f1"], line["champion_f1"]) for line in listed] == [
        (second, "refuse", 0.25, 0.5),
        (first, "promote", 0.5, None),
    ]


def test_a_decision_keeps_its_figures(engine: Engine) -> None:
    (version,) = add_versions(engine)
    with transaction(engine) as conn:
        number = registry.record(conn, new_decision(version, None, holdout_hash="f" * 64, figures={"precision": 0.5}))
    assert rows(engine, "select decision_id, holdout_hash, figures from millrace.promotion_decisions") == [
        (number, "f" * 64, {"precision": 0.5})
    ]
