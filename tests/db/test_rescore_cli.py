"""The commands `rescore` and `backlog`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from mllib.cli import main
from mllib.jobs import scoring
from tests.db.scoring_factories import DETECTOR, insert_logs, promote_model, rows

RANGE = ["--from", "2026-03-02T08:00", "--to", "2026-03-02T11:00+01:00"]


@pytest.fixture
def scored(engine: Engine, dsn: str, champion: int, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("MILLRACE_DSN", dsn)
    insert_logs(engine, 1_000, step=timedelta(seconds=10))
    scoring.score(engine, DETECTOR)
    promote_model(engine, threshold=0.56)
    return engine


def test_a_plan_is_shown_and_then_run(scored: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", DETECTOR, *RANGE, "--dry-run", "--json", "--reason", "why not"]) == 0
    out = capsys.readouterr().out
    plan = json.loads(out.splitlines()[-1])
    assert (plan["rows"], plan["dry_run"], plan["exact"], len(plan["hours"])) == (720, True, True, 2)
    assert plan["pieces"][0]["version"] == 2
    assert f"--plan {plan['plan']}` runs exactly this" in out
    assert f"{plan['changes']:,} verdicts would change" in out
    assert "2026-03-02 09:00" in out
    assert rows(scored, "select count(*) from millrace.predictions_history") == [(0,)]
    assert main(["rescore", DETECTOR, "--plan", str(plan["plan"]), "--json"]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (done["scored"], done["dry_run"], done["plan"]) == (720, False, plan["plan"])
    assert rows(scored, "select reason, made_by <> '' from millrace.rescore_plans") == [("why not", True)]


def test_it_plans_and_runs_in_one_go(scored: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", DETECTOR, *RANGE, "--model", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scored"] == 720


def test_a_void_plan_is_one_sentence(scored: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", DETECTOR, *RANGE, "--dry-run"]) == 0
    promote_model(scored, threshold=0.57)
    assert main(["rescore", DETECTOR, "--plan", "1"]) == 1
    assert "Plan 1 is out of date: another version has been promoted since" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [*RANGE, "--plan", "1"],
        RANGE[:2],
        ["--from", "2026-03-02T12:00", "--to", "2026-03-02T11:00"],
        [*RANGE, "--model", "best"],
        [*RANGE, "--model", "0"],
    ],
)
def test_what_does_not_go_together_is_a_matter_of_usage(scored: Engine, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["rescore", DETECTOR, *arguments])
    assert caught.value.code == 2


@pytest.mark.parametrize("command", ["score", "rescore"])
def test_the_future_is_refused(scored: Engine, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    assert main([command, DETECTOR, "--from", "2026-03-02", "--to", end.isoformat()]) == 1
    assert "ends after now" in capsys.readouterr().err


def test_the_backlog_names_what_finishes_it(scored: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    def backlog(*more: str) -> tuple[str, dict[str, Any]]:
        assert main(["backlog", DETECTOR, *RANGE, "--json", *more]) == 0
        out = capsys.readouterr().out
        return out, json.loads(out.splitlines()[-1])

    said, found = backlog()
    assert [hour["rows"] for hour in found["hours"]] == [360, 360]
    assert "millrace rescore log_anomaly --from 2026-03-02T08:00:00 --to 2026-03-02T10:00:00" in said
    assert main(["rescore", DETECTOR, *RANGE]) == 0
    assert backlog()[1]["hours"] == []
    since = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert len(backlog("--since", since)[1]["hours"]) == 2
