"""The report of a verdict: drawn, kept and found again with the decision, and never in its way."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from mllib.cli import main
from mllib.errors import BadInput
from mllib.jobs import judging, reporting
from mllib.jobs.judging import judge_candidate
from mllib.jobs.training import fit_candidate
from mllib.store import reports
from mllib.store.database import transaction
from mllib.types import ModelStatus, Verdict
from tests.db.scoring_factories import DETECTOR, rows, scalar
from tests.db.training_factories import END, change, decisions, make_champion_like, run, stored_model, version_row

KEPT = "select count(*) from millrace.promotion_reports"


def content(engine: Engine, decision_id: int | None) -> str:
    assert decision_id is not None
    with transaction(engine) as conn:
        page = reports.page(conn, decision_id)
    assert page is not None
    assert page.content is not None
    return page.content


def test_every_verdict_has_its_page(shop: Engine) -> None:
    first, second = run(shop), run(shop)

    assert rows(shop, "select decision_id from millrace.promotion_reports order by 1") == [
        (first.decision_id,),
        (second.decision_id,),
    ]
    assert "Version 1 is the first champion" in content(shop, first.decision_id)
    page = content(shop, second.decision_id)
    assert "Version 2 of log_anomaly was refused. Version 1 stays champion." in page
    assert second.holdout_hash in page
    assert f"{second.candidate_f1:.4f}" in page
    assert f"{second.holdout_rows:,} labelled rows" in page
    lineage = version_row(shop, 2)
    assert lineage["data_hash"] in page
    assert lineage["artifact_digest"] in page


def test_a_dry_run_leaves_no_page_and_a_refused_promotion_neither(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    report = judge_candidate(shop, DETECTOR, version, decided_by="test", dry_run=True)
    assert report.decision_id is None
    with pytest.raises(BadInput):
        judging.promote(shop, DETECTOR, version, reason=" ", by="test")
    assert scalar(shop, KEPT) == 0


def test_example_lines_are_those_on_which_the_models_differ(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    model = stored_model(shop, version)
    make_champion_like(shop, version, model.with_threshold(model.expected_threshold(0.0005)))
    change(shop, "update millrace.logs set message = '<script>alert(1)</script> number ' || log_id")
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")
    page = content(shop, report.decision_id)

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; number " in page
    found, _, rest = page.partition("Lost by the candidate")
    lost, _, false_alarms = rest.partition("New false alarms")
    shown = [part.count("&lt;script&gt;") for part in (found, lost, false_alarms)]
    # The champion is the same model with a higher threshold: it finds nothing that the candidate does not.
    assert 0 < shown[0] <= 10
    assert shown[1] == 0
    assert np.sum(shown) == page.count("&lt;script&gt;")


@pytest.mark.parametrize(
    "labels",
    [
        "truncate millrace.labels",
        "delete from millrace.labels where label = '0'",
        "update millrace.logs set service = null",
    ],
)
def test_labels_of_one_kind_none_or_rows_without_service_have_a_page_too(shop: Engine, labels: str) -> None:
    change(shop, labels)
    assert content(shop, run(shop).decision_id)


def test_a_page_that_cannot_be_stored_does_not_stop_the_verdict(shop: Engine, caplog: pytest.LogCaptureFixture) -> None:
    change(shop, "alter table millrace.promotion_reports rename to elsewhere")
    with caplog.at_level(logging.ERROR):
        report = run(shop)

    assert report.verdict is Verdict.PROMOTE
    assert version_row(shop, report.version)["status"] == ModelStatus.CHAMPION
    assert [row["decision_id"] for row in decisions(shop)] == [report.decision_id]
    assert "could not be drawn. The verdict stands" in caplog.text
    assert "promotion_reports" in caplog.text
    change(shop, "alter table millrace.elsewhere rename to promotion_reports")
    with pytest.raises(BadInput, match="no report of the last verdict"):
        reporting.find(shop, DETECTOR)


def test_a_model_that_cannot_be_read_is_refused_with_a_page(shop: Engine) -> None:
    version = fit_candidate(shop, DETECTOR, trained_by="test")
    # The database itself refuses such bytes; a disk does not ask it.
    change(shop, "alter table millrace.model_artifacts drop constraint model_artifacts_check")
    change(
        shop, "update millrace.model_artifacts set content = set_byte(content, 100, 1 - get_byte(content, 100) / 255)"
    )
    report = judge_candidate(shop, DETECTOR, version, decided_by="test")

    assert report.verdict is Verdict.REFUSE
    assert "it could not be measured" in content(shop, report.decision_id).replace("So it", "it")


def test_the_command_writes_the_page_and_overwrites_nothing(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_DSN", shop.url.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    assert main(["report", DETECTOR]) == 1
    assert "has not judged log_anomaly yet" in capsys.readouterr().err
    first, second = run(shop), run(shop, as_of=END - timedelta(days=2))
    capsys.readouterr()

    assert main(["report", DETECTOR]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == tmp_path / f"report-{DETECTOR}-v2-decision{second.decision_id}.html"
    assert written.read_text() == content(shop, second.decision_id)

    assert main(["report", DETECTOR]) == 1
    assert "is there already" in capsys.readouterr().err

    output = tmp_path / "first.html"
    assert main(["report", DETECTOR, "1", "--output", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {
        "detector": DETECTOR,
        "version": 1,
        "decision_id": first.decision_id,
        "path": str(output),
    }
    assert output.read_text() == content(shop, first.decision_id)

    assert main(["report", DETECTOR, "9"]) == 1
    assert main(["report", "no_such_detector"]) == 1
    assert main(["report", DETECTOR, "--output", str(tmp_path / "no" / "folder.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_list_holds_what_may_be_read_the_latest_first(shop: Engine) -> None:
    first, second = run(shop), run(shop)
    with transaction(shop) as conn:
        assert reports.detectors(conn) == [DETECTOR]
        listed = reports.listed(conn, [DETECTOR])
        assert reports.listed(conn, []) == []
        assert reports.page(conn, 99) is None
    assert [row["decision_id"] for row in listed] == [second.decision_id, first.decision_id]
    assert [row["champion_version"] for row in listed] == [1, None]
