"""Promotion by hand, and the way back: marked as such, with a reason, and never against the wrong champion."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from mllib.errors import BadInput, DatabaseUnavailable, PromotionConflict
from mllib.jobs import judging
from mllib.store.database import driver
from mllib.types import Verdict
from tests.db.factories import (
    DETECTOR,
    add_versions,
    champion,
    champion_at,
    decide,
    promote_in_turn,
    rows,
    scalar,
    statuses,
)
from tests.db.test_cli import answer, millrace


def back(engine: Engine, reason: str) -> tuple[int, int]:
    """Rolls back; who was champion before, and who is now."""
    done = judging.rollback(engine, DETECTOR, reason=reason, by="a person")
    assert done.milliseconds > 0
    return done.before, done.champion


def test_a_promotion_by_hand_needs_a_reason_and_is_marked(engine: Engine) -> None:
    (version,) = add_versions(engine)
    with pytest.raises(BadInput, match="--reason"):
        judging.promote(engine, DETECTOR, version, reason="  ", by="a person")
    decide(engine, version, None, verdict=Verdict.NOT_ENOUGH_EVIDENCE)
    assert judging.promote(engine, DETECTOR, version, reason="we need one", by="a person") is None
    assert champion(engine) == version
    last = (
        "select kind, verdict, reason, decided_by from millrace.promotion_decisions order by decision_id desc limit 1"
    )
    assert rows(engine, last) == [("forced", "promote", "we need one", "a person")]
    with pytest.raises(BadInput, match="is champion already"):
        judging.promote(engine, DETECTOR, version, reason="again", by="a person")


def test_a_promotion_by_hand_swaps_against_the_champion_of_the_verdict(engine: Engine) -> None:
    first, second, late = add_versions(engine, 3)
    promote_in_turn(engine, first)
    decide(engine, late, first, verdict=Verdict.REFUSE)
    promote_in_turn(engine, second)
    with pytest.raises(PromotionConflict, match="--against current"):
        judging.promote(engine, DETECTOR, late, reason="better for us", by="a person")
    assert champion(engine) == second
    assert (
        judging.promote(engine, DETECTOR, late, reason="better for us", by="a person", against_current=True) == second
    )
    assert statuses(engine) == {first: "archived", second: "archived", late: "champion"}
    against = "select champion_version from millrace.promotion_decisions order by decision_id desc limit 1"
    assert scalar(engine, against) == second


def test_a_version_that_was_never_judged_is_promoted_by_hand_only_where_there_is_no_champion(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    judging.promote(engine, DETECTOR, first, reason="a start", by="a person")
    with pytest.raises(PromotionConflict, match="judged against no champion"):
        judging.promote(engine, DETECTOR, second, reason="newer", by="a person")


def test_rollback_goes_further_back_each_time_and_never_forth(engine: Engine) -> None:
    first, second, third = add_versions(engine, 3)
    promote_in_turn(engine, first, second, third)
    assert back(engine, "alerts doubled") == (third, second)
    assert back(engine, "still") == (second, first)
    with pytest.raises(BadInput, match="no earlier champion"):
        judging.rollback(engine, DETECTOR, reason="still", by="a person")
    assert statuses(engine) == {first: "champion", second: "archived", third: "archived"}
    kinds = "select kind, candidate_version, champion_version from millrace.promotion_decisions order by decision_id"
    assert rows(engine, kinds)[-2:] == [("rollback", second, third), ("rollback", first, second)]
    assert champion_at(engine, datetime.now(UTC)) == first


def test_rollback_finds_its_way_when_a_version_was_champion_twice(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    promote_in_turn(engine, first, second, first)
    assert back(engine, "worse") == (first, second)
    assert back(engine, "worse") == (second, first)


def test_rollback_after_a_rollback_and_a_promotion(engine: Engine) -> None:
    first, second, third, fourth = add_versions(engine, 4)
    promote_in_turn(engine, first, second, third)
    judging.rollback(engine, DETECTOR, reason="worse", by="a person")
    promote_in_turn(engine, fourth)
    assert back(engine, "worse") == (fourth, second)


def test_a_rollback_needs_a_reason_and_somewhere_to_go(engine: Engine) -> None:
    with pytest.raises(BadInput, match="--reason"):
        judging.rollback(engine, DETECTOR, reason="", by="a person")
    with pytest.raises(BadInput, match="no earlier champion"):
        judging.rollback(engine, DETECTOR, reason="worse", by="a person")


def test_a_rollback_is_one_transaction_and_says_who_and_why(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    promote_in_turn(engine, first, second)
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(1))
    judging.rollback(engine, DETECTOR, reason="alerts doubled", by="somebody")
    assert len(commits) == 1
    last = "select kind, reason, decided_by, xmin from millrace.promotion_decisions order by decision_id desc limit 1"
    (kind, reason, by, transaction_id) = rows(engine, last)[0]
    assert (kind, reason, by) == ("rollback", "alerts doubled", "somebody")
    changed = "select distinct xmin from millrace.model_registry where version in (:a, :b)"
    assert rows(engine, changed, a=first, b=second) == [(transaction_id,)]


def test_a_rollback_cut_off_at_any_moment_leaves_one_champion(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    promote_in_turn(engine, first, second)
    for moment in range(30):
        if _rollback_killed_at(engine, moment):
            break
        assert statuses(engine) == {first: "archived", second: "champion"}, f"killed at moment {moment}"
    assert moment >= 7
    assert statuses(engine) == {first: "champion", second: "archived"}


def _rollback_killed_at(engine: Engine, moment: int) -> bool:
    """Rolls back on a connection that is ended before its n-th statement or commit; true when it came through."""
    victim = create_engine(engine.url)
    seen = 0

    def end_it(conn: Connection, *_: object) -> None:
        nonlocal seen
        if seen == moment:
            assert scalar(engine, "select pg_terminate_backend(:pid, 5000)", pid=driver(conn).info.backend_pid)
        seen += 1

    try:
        with victim.connect() as conn:
            conn.execute(text("select 1"))  # so that what SQLAlchemy asks of a first connection is behind us
        event.listen(victim, "before_cursor_execute", end_it)
        event.listen(victim, "commit", end_it)
        judging.rollback(victim, DETECTOR, reason="alerts doubled", by="a person")
    except DatabaseUnavailable:
        return False
    finally:
        victim.dispose()
    return True


def test_the_commands_say_what_they_did(dsn: str, engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    said = millrace("promote", DETECTOR, f"{first}", "--reason", "a start", dsn=dsn).stdout
    assert said == f"{DETECTOR}: version {first} is champion now. There was none before.\n"
    between = datetime.now(UTC)
    decide(engine, second, first, verdict=Verdict.REFUSE)
    said = millrace("promote", DETECTOR, f"{second}", "--reason", "better", dsn=dsn).stdout
    assert said == f"{DETECTOR}: version {second} is champion now. Before it was version {first}.\n"
    said = millrace("rollback", DETECTOR, "--reason", "worse", "--json", dsn=dsn).stdout.splitlines()
    told = json.loads(said[1])
    assert (told["before"], told["champion"]) == (second, first)
    took = f"{told['milliseconds']:.1f}"
    assert said[0] == f"{DETECTOR} went back from version {second} to version {first}, in one transaction of {took} ms."
    assert set(rows(engine, "select decided_by from millrace.promotion_decisions where kind <> 'gate'")) == {
        (getpass.getuser(),)
    }
    for moment, version in ((between, first), (datetime.now(UTC), first), (datetime(2020, 1, 1, tzinfo=UTC), None)):
        told = answer("models", DETECTOR, "--at", moment.isoformat(), dsn=dsn)
        assert told["champions"] == [{"detector": DETECTOR, "version": version}]
    assert (
        "there was no champion at 2020-01-01 00:00:00 UTC" in millrace("models", "--at", "2020-01-01", dsn=dsn).stdout
    )
