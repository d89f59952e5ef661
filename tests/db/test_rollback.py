"""Promotion by hand, and the way back: marked as such, with a reason, and never against the wrong champion."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from mllib.errors import BadInput, PromotionConflict
from mllib.jobs import judging
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
    assert judging.rollback(engine, DETECTOR, reason="alerts doubled", by="a person") == (third, second)
    assert judging.rollback(engine, DETECTOR, reason="still", by="a person") == (second, first)
    with pytest.raises(BadInput, match="no earlier champion"):
        judging.rollback(engine, DETECTOR, reason="still", by="a person")
    assert statuses(engine) == {first: "champion", second: "archived", third: "archived"}
    kinds = "select kind, candidate_version, champion_version from millrace.promotion_decisions order by decision_id"
    assert rows(engine, kinds)[-2:] == [("rollback", second, third), ("rollback", first, second)]
    assert champion_at(engine, datetime.now(UTC)) == first


def test_rollback_finds_its_way_when_a_version_was_champion_twice(engine: Engine) -> None:
    first, second = add_versions(engine, 2)
    promote_in_turn(engine, first, second, first)
    assert judging.rollback(engine, DETECTOR, reason="worse", by="a person") == (first, second)
    assert judging.rollback(engine, DETECTOR, reason="worse", by="a person") == (second, first)


def test_rollback_after_a_rollback_and_a_promotion(engine: Engine) -> None:
    first, second, third, fourth = add_versions(engine, 4)
    promote_in_turn(engine, first, second, third)
    judging.rollback(engine, DETECTOR, reason="worse", by="a person")
    promote_in_turn(engine, fourth)
    assert judging.rollback(engine, DETECTOR, reason="worse", by="a person") == (fourth, second)


def test_a_rollback_needs_a_reason_and_somewhere_to_go(engine: Engine) -> None:
    with pytest.raises(BadInput, match="--reason"):
        judging.rollback(engine, DETECTOR, reason="", by="a person")
    with pytest.raises(BadInput, match="no earlier champion"):
        judging.rollback(engine, DETECTOR, reason="worse", by="a person")
