"""The gate in weeks in which something is wrong with the logs or the labels, measured on truth that it never sees.

Two quiet weeks bring forth a champion. In the third something happens, and a candidate is trained at its end. The
fourth week is quiet again and keeps its true labels: there it shows which of the two models is the better one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mllib import demo
from mllib.detectors import detector
from mllib.jobs.intake import ingest
from mllib.jobs.labelled import score_labelled
from mllib.store import registry
from mllib.store import rows as row_store
from mllib.store.database import engine_for, transaction
from mllib.types import Verdict, Window
from tests.conftest import _command, _in
from tests.db.scoring_factories import DETECTOR
from tests.db.training_factories import END, change, decisions, run, stored_model, version_row

WEEK = timedelta(days=7)
TODAY = END - WEEK
BEGIN = END - 4 * WEEK
HOLDOUT = TODAY - timedelta(days=5, hours=6)
"""Where a quarter of the labelled three weeks begins."""
ROWS = 24_000
SEEDS = (2, 3)

Spoil = Callable[[Engine, Path], None]


@pytest.fixture(scope="module", params=SEEDS)
def four_weeks(
    request: pytest.FixtureRequest, server: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a database with four labelled weeks and a champion of the first two, which is only ever copied."""
    name = f"millrace_weeks_{uuid.uuid4().hex[:8]}"
    _command(server, f"create database {name} template {template}")
    engine = engine_for(_in(server, name))
    files = demo.generate(tmp_path_factory.mktemp("weeks"), now=END, days=28, rows=ROWS, seed=request.param)
    ingest(engine, files, format_name="jsonl", with_labels=True)
    first = run(engine, as_of=TODAY - WEEK)
    assert first.verdict is Verdict.PROMOTE, first.reason
    engine.dispose()
    yield name
    _command(server, f"drop database {name} with (force)")


@pytest.fixture
def weeks(server: str, four_weeks: str) -> Iterator[Engine]:
    """A test's own copy of it."""
    name = f"millrace_{uuid.uuid4().hex[:12]}"
    _command(server, f"create database {name} template {four_weeks}")
    engine = engine_for(_in(server, name))
    yield engine
    engine.dispose()
    _command(server, f"drop database {name} with (force)")


def truth(engine: Engine, *versions: int) -> list[float]:
    """F1 of the versions in the quiet fourth week, by its true labels."""
    models = [stored_model(engine, version) for version in versions]
    with transaction(engine) as conn:
        rows = score_labelled(
            conn,
            detector(DETECTOR),
            Window(TODAY, END),
            models,
            as_of=END,
            label_delay=timedelta(0),
            snapshot=row_store.current_snapshot(conn),
        )
    assert rows.positive.sum() > 50
    return [rows.metrics(number, model.threshold).f1 for number, model in enumerate(models)]


def flip(start: datetime, end: datetime) -> Spoil:
    statement = (
        "insert into millrace.labels (ts, row_id, label, origin) select ts, row_id, case label when '0' then '1' else"
        " '0' end, 'import' from millrace.labels_current where ts >= :a and ts < :b"
    )
    return lambda engine, _: _changed(engine, statement, a=start, b=end)


def unlabel(start: datetime, *labels: str) -> Spoil:
    statement = "delete from millrace.labels where ts >= :a and ts < :b and label = any(:labels)"
    return lambda engine, _: _changed(engine, statement, a=start, b=TODAY, labels=list(labels))


def rename(old: str, new: str) -> Spoil:
    statement = "update millrace.logs set level = :new where level = :old and ts >= :a and ts < :b"
    return lambda engine, _: _changed(engine, statement, a=TODAY - WEEK, b=TODAY, old=old, new=new)


def silence(engine: Engine, _: Path) -> None:
    """The service payments writes nothing in the third week."""
    window = {"a": TODAY - WEEK, "b": TODAY}
    _changed(
        engine,
        "delete from millrace.labels as l using millrace.logs as g where g.ts = l.ts and g.log_id = l.row_id"
        " and g.service = 'payments' and g.ts >= :a and g.ts < :b",
        **window,
    )
    _changed(engine, "delete from millrace.logs where service = 'payments' and ts >= :a and ts < :b", **window)


def crowd(engine: Engine, folder: Path) -> None:
    """Ten times as many lines in the third week, honestly labelled."""
    files = demo.generate(folder, now=TODAY, days=7, rows=ROWS // 4 * 9, seed=99)
    ingest(engine, files, format_name="jsonl", with_labels=True, source="crowd")


def _changed(engine: Engine, statement: str, **binds: object) -> None:
    assert change(engine, statement, **binds) > 0


SCENARIOS: dict[str, tuple[Spoil, Verdict | None, str]] = {
    "labels flipped in training and validation": (flip(BEGIN, HOLDOUT), Verdict.REFUSE, "Were labels flipped?"),
    "labels flipped in validation and holdout": (
        flip(TODAY - WEEK, TODAY),
        Verdict.NOT_ENOUGH_EVIDENCE,
        "Were labels flipped?",
    ),
    "labels flipped everywhere": (flip(BEGIN, TODAY), Verdict.REFUSE, "Were labels flipped?"),
    "a service gone": (silence, None, "The service payments has gone"),
    "a level renamed to another spelling": (rename("WARN", "WARNING"), None, "WARN has gone and WARNING is new"),
    "a level renamed to another meaning": (rename("ERROR", "NOTICE"), None, "ERROR has gone and NOTICE is new"),
    "a week without labels": (unlabel(TODAY - WEEK, "0", "1"), Verdict.REFUSE, "label is 7 days older"),
    "no anomaly labelled": (
        unlabel(TODAY - timedelta(days=12), "1"),
        Verdict.NOT_ENOUGH_EVIDENCE,
        "none of the labelled rows to judge on is an anomaly",
    ),
    "nothing but anomalies labelled": (
        unlabel(TODAY - WEEK, "0"),
        Verdict.NOT_ENOUGH_EVIDENCE,
        "hardly any labelled row is an ordinary one",
    ),
    "ten times the volume": (crowd, Verdict.NOT_ENOUGH_EVIDENCE, "there are far more rows a day"),
}


@pytest.mark.parametrize(("spoil", "verdict", "said"), SCENARIOS.values(), ids=SCENARIOS)
def test_a_worse_model_is_never_promoted_and_the_reason_says_what_happened(
    weeks: Engine, tmp_path: Path, spoil: Spoil, verdict: Verdict | None, said: str
) -> None:
    spoil(weeks, tmp_path)
    report = run(weeks, as_of=TODAY)
    candidate, champion = truth(weeks, report.version, 1)
    assert said in report.reason
    recorded = decisions(weeks)[-1]
    for promoted in (report.verdict, Verdict(recorded["other_verdict"])):
        assert promoted is not Verdict.PROMOTE or candidate >= champion
    assert verdict in {None, report.verdict}
    if report.verdict is not Verdict.PROMOTE:
        with transaction(weeks) as conn:
            assert registry.champion(conn, DETECTOR) == 1
        assert version_row(weeks, report.version)["status"] != "champion"


def test_labels_flipped_before_the_holdout_do_make_a_useless_model(weeks: Engine, tmp_path: Path) -> None:
    """Otherwise the scenario above would have nothing to refuse."""
    flip(BEGIN, HOLDOUT)(weeks, tmp_path)
    report = run(weeks, as_of=TODAY)
    candidate, champion = truth(weeks, report.version, 1)
    assert candidate < 0.1 < champion - 0.2
