"""Detectors that tell classes apart go the whole way: truth out of labels or out of the rows, judged by macro-F1."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import mllib.detectors
from mllib.detectors import detector
from mllib.ingest.base import ParseOptions
from mllib.jobs import reporting, scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.intake import ingest
from mllib.jobs.judging import TrainReport, train
from mllib.jobs.reproducing import reproduce
from mllib.store.database import transaction
from mllib.types import Policy, Verdict, Window
from tests.db.factories import rows, scalar, write_lines
from tests.db.source_factories import FLOW_HEADER, flow_line
from tests.factories import START

ROWS = 4_000
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))
BETTER, WORSE_OVERALL, LOSES_A_CLASS = (50.0, 140.0), (50.0, 110.0), (50.0, 170.0)
CLASSES = ("BENIGN", "PortScan", "DoS Hulk")


@pytest.fixture(autouse=True)
def tiny_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny detectors are found beside the real ones."""
    folder = Path(__file__).parent.parent / "tiny" / "detectors"
    monkeypatch.setattr(mllib.detectors, "__path__", [*mllib.detectors.__path__, str(folder)])


def syn_flags(number: int) -> int:
    """Nine of ten flows are benign; three in four attacks are scans, with 100 to 139 flags, the others floods."""
    if number * 7919 % 100 >= 10:
        return number % 40
    return 140 + number * 37 % 60 if number * 7919 % 1000 < 250 else 100 + number * 31 % 40


def load_flows(engine: Engine, folder: Path) -> None:
    lines = []
    for number in range(ROWS):
        flags = syn_flags(number)
        label = CLASSES[(flags >= 100) + (flags >= 140)]
        lines.append(flow_line(number, **{"SYN Flag Count": flags}).rpartition(",")[0] + f",{label}")
    path = write_lines(folder / "flows.csv", FLOW_HEADER, *lines)
    report = ingest(engine, [path], format_name="cicflowmeter", with_labels=True, options=ParseOptions(start=START))
    assert (report.rows, report.labels) == (ROWS, ROWS)


def weekly(engine: Engine, name: str, cuts: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, **how) -> TrainReport:
    """The weekly job with a model that cuts there."""
    monkeypatch.setattr(type(detector(name)), "cuts", cuts)
    return train(engine, name, by="a test", **how)


def figures(engine: Engine) -> dict:
    found = scalar(engine, "select figures from millrace.promotion_decisions order by decision_id desc limit 1")
    assert isinstance(found, dict)
    return found


def test_attacks_are_judged_by_macro_f1_from_the_file_to_the_page(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_flows(engine, tmp_path)
    first = weekly(engine, "tiny_attacks", WORSE_OVERALL, monkeypatch)
    assert (first.verdict, first.metric) == (Verdict.PROMOTE, "macro_f1")
    assert "macro-F1" in first.reason
    assert "most frequent class" in first.reason
    page = reporting.find(engine, "tiny_attacks")[1]
    assert "Which class is taken for which" in page
    assert "The most frequent class" in page

    better = weekly(engine, "tiny_attacks", BETTER, monkeypatch, policy=Policy.EVIDENCE)
    assert (better.verdict, better.candidate_f1) == (Verdict.PROMOTE, 1.0)
    assert first.candidate_f1 == better.champion_f1 < 0.9
    decided = figures(engine)
    assert decided["metric"] == "macro_f1"
    assert {figure["name"]: figure["f1"] for figure in decided["candidate"]["classes"]} == dict.fromkeys(CLASSES, 1.0)
    assert {(part["dimension"], part["value"]) for part in decided["segments"]} >= {
        *(("class", name) for name in CLASSES),
        ("anomalies", "all"),
    }
    page = reporting.find(engine, "tiny_attacks")[1]
    for said in ("DoS Hulk", "Macro-F1", "Put right by the candidate", "No class or other part left behind"):
        assert said in page
    assert "Precision and recall at every threshold" not in page

    again = weekly(engine, "tiny_attacks", BETTER, monkeypatch)
    assert (again.verdict, again.candidate_f1, again.champion_f1) == (Verdict.REFUSE, 1.0, 1.0)
    assert again.holdout_hash == better.holdout_hash
    assert reproduce(engine, "tiny_attacks", again.version).exact

    report = scoring.score(engine, "tiny_attacks")
    assert (report.claimed, report.scored) == (ROWS, ROWS)
    assert rows(
        engine,
        "select class, is_anomaly, min(confidence), max(confidence), count(*) from analytics.flow_predictions"
        " where detector = 'tiny_attacks' group by 1, 2 order by 1",
    ) == [
        (name, name != "BENIGN", 0.75, 0.75, sum(label == name for label in map(true_class, range(ROWS))))
        for name in sorted(CLASSES)
    ]
    scoring.score(engine, "tiny_attacks", window=Window(START, START + timedelta(hours=1)))
    assert scalar(engine, "select count(class) from millrace.predictions_history") == 60
    assert examine(engine, patience=AT_ONCE).findings == ()


def true_class(number: int) -> str:
    flags = syn_flags(number)
    return CLASSES[(flags >= 100) + (flags >= 140)]


def test_a_gain_overall_does_not_pay_for_a_class_that_is_lost(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion takes half the scans for floods; the candidate finds all scans and only half the floods."""
    load_flows(engine, tmp_path)
    champion = weekly(engine, "tiny_attacks", (50.0, 105.0), monkeypatch)
    assert champion.verdict is Verdict.PROMOTE
    report = weekly(engine, "tiny_attacks", LOSES_A_CLASS, monkeypatch)
    assert report.candidate_f1 is not None
    assert report.candidate_f1 > (report.champion_f1 or 1)
    assert report.verdict is Verdict.REFUSE
    assert "serves class DoS Hulk clearly worse" in report.reason
    assert "recall" in report.reason


def load_logs(engine: Engine, *, labelled: bool = False) -> None:
    """Log lines whose duration gives their level away; a few have a level that means no class."""
    statement = text(
        """
        insert into millrace.logs (ts, level, service, message)
        select
            cast(:start as timestamptz) + i * interval '1 minute',
            case
                when i % 50 = 49 then 'TRACE' when i % 10 = 0 then 'ERROR' when i % 10 < 3 then 'WARNING' else 'INFO'
            end,
            (array['shop', 'search', 'mail'])[1 + i % 3],
            'request ' || i || ' took ' || case
                when i % 50 = 49 then 5 when i % 10 = 0 then 20 + i % 7 when i % 10 < 3 then 10 + i % 7 else i % 10
            end
        from generate_series(1, :rows) as i
        """
    )
    with transaction(engine) as conn:
        conn.execute(statement, {"start": START, "rows": ROWS})
        if labelled:
            conn.execute(
                text(
                    "insert into millrace.labels (ts, row_id, label, origin) select ts, log_id,"
                    " case when level = 'INFO' then '0' else '1' end, 'import' from millrace.logs"
                    " where level <> 'TRACE' and log_id % 2 = 0"
                )
            )


def test_levels_are_judged_by_the_rows_themselves(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load_logs(engine)
    first = weekly(engine, "tiny_levels", (10.0, 23.0), monkeypatch)
    assert (first.verdict, first.metric) == (Verdict.PROMOTE, "macro_f1")
    judged = figures(engine)["candidate"]
    assert first.holdout_positives == 0
    assert {figure["name"] for figure in judged["classes"]} == {"INFO", "WARN", "ERROR"}
    assert judged["anomalies"] is None
    better = weekly(engine, "tiny_levels", (10.0, 20.0), monkeypatch, policy=Policy.EVIDENCE)
    assert (better.verdict, better.candidate_f1) == (Verdict.PROMOTE, 1.0)
    # By level would be by class.
    assert {part["dimension"] for part in figures(engine)["segments"]} == {"class", "service"}
    assert "Which class is taken for which" in reporting.find(engine, "tiny_levels")[1]
    assert reproduce(engine, "tiny_levels", better.version).exact
    scoring.score(engine, "tiny_levels")
    assert rows(
        engine,
        "select class, count(*) from millrace.predictions group by 1 order by 1",
    ) == [("ERROR", 400), ("INFO", 2_800), ("WARN", 800)]


def test_anomalies_must_not_be_found_clearly_worse_where_they_are_labelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_logs(engine, labelled=True)
    assert weekly(engine, "tiny_levels", (10.0, 23.0), monkeypatch).verdict is Verdict.PROMOTE
    assert figures(engine)["candidate"]["anomalies"]["f1"] == 1.0
    # Warnings are called by their name now, but half of them are no anomalies any more.
    report = weekly(engine, "tiny_levels", (13.0, 20.0), monkeypatch)
    assert report.verdict is Verdict.REFUSE
    assert {part["dimension"] for part in figures(engine)["segments"]} == {"class", "service", "anomalies"}
    assert "anomalies" in report.reason


def test_rows_of_one_class_say_too_little(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load_logs(engine)
    with transaction(engine) as conn:
        conn.execute(text("update millrace.logs set level = 'INFO'"))
    report = weekly(engine, "tiny_levels", (10.0, 20.0), monkeypatch)
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "too few rows of more than one class" in report.reason
