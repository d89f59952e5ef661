"""A replay is what the real jobs would have done, looks at nothing that came later, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mllib.cli import main
from mllib.errors import BadInput, NothingToTrainOn
from mllib.jobs.replaying import replay
from mllib.jobs.scoring import score
from mllib.replay import Period, Replay, Rule
from mllib.types import Policy, Verdict, Window
from tests.db.factories import champion, rows
from tests.db.scoring_factories import DETECTOR, insert_logs, scalar
from tests.db.training_factories import END, change, run

EVERY = timedelta(days=2)
WINDOW = Window(END - timedelta(days=10), END)


def lived(engine: Engine, **how: Any) -> Replay:
    return replay(engine, DETECTOR, **{"window": WINDOW, "every": EVERY, **how})


def verdicts(periods: Iterable[Period]) -> list[dict[Rule, tuple[Any, ...]]]:
    """All that was decided at the start of each period."""
    return [
        {rule: (step.champion, step.promoted, step.verdict, step.reason) for rule, step in period.steps.items()}
        for period in periods
    ]


def table_sizes(engine: Engine) -> dict[str, int]:
    tables = rows(engine, "select tablename from pg_tables where schemaname = 'millrace'")
    return {name: scalar(engine, f"select count(*) from millrace.{name}") for (name,) in tables}  # noqa: S608


@pytest.mark.parametrize("rule", [Rule.STRICT, Rule.EVIDENCE])
def test_a_replay_is_what_the_weekly_jobs_would_have_done(shop: Engine, rule: Rule) -> None:
    found = lived(shop)
    promotions = 0
    for period in found.periods:
        as_of = period.window.start
        step = period.steps[rule]
        report = run(shop, as_of=as_of, policy=Policy(rule.value))
        assert (report.version, report.verdict) == (period.candidate, step.verdict)
        assert champion(shop) == step.champion
        assert (report.verdict is Verdict.PROMOTE) == step.promoted
        if step.champion is None:
            continue
        promotions += step.promoted
        # What this champion says of the period, asked through the claims and the ledger.
        scored = score(shop, DETECTOR, window=period.window)
        assert step.counts is not None
        assert (scored.scored, scored.anomalies) == (step.counts.rows, step.counts.alerts)
        hits = scalar(
            shop,
            "select count(*) from millrace.predictions p join millrace.labels_current l on l.ts = p.ts"
            " and l.row_id = p.log_id where p.is_anomaly and l.label <> '0' and p.ts >= :start and p.ts < :end",
            start=period.window.start,
            end=period.window.end,
        )
        assert hits == step.counts.hits
    assert promotions >= 1
    assert {period.steps[rule].verdict for period in found.periods} > {Verdict.PROMOTE}


def test_nothing_is_written(shop: Engine) -> None:
    before = table_sizes(shop)
    found = lived(shop)
    assert any(step.promoted for period in found.periods for step in period.steps.values())
    assert table_sizes(shop) == before


def test_what_comes_later_changes_nothing_that_was_decided(shop: Engine) -> None:
    later = WINDOW.start + 3 * EVERY
    before = lived(shop).periods
    insert_logs(shop, 2_000, start=later + timedelta(seconds=1), step=timedelta(seconds=60))
    change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, log_id, '1', 'import' from millrace.logs"
        " where ts > :later",
        later=later,
    )
    after = lived(shop).periods
    assert verdicts(after[:4]) == verdicts(before[:4])
    assert [p.steps[r].counts for p in after[:3] for r in Rule] == [p.steps[r].counts for p in before[:3] for r in Rule]
    assert verdicts(after[4:]) != verdicts(before[4:])


def test_a_label_given_today_measures_the_past_and_decides_nothing_in_it(shop: Engine) -> None:
    before = lived(shop).periods
    flipped = change(
        shop,
        "insert into millrace.labels (ts, row_id, label, origin) select ts, row_id, case label when '0' then '1' else"
        " '0' end, 'analyst' from millrace.labels_current where ts >= :start",
        start=WINDOW.start,
    )
    after = lived(shop).periods
    assert flipped > 1_000
    assert verdicts(after) == verdicts(before)
    counts, flipped_counts = (periods[-1].steps[Rule.ALWAYS].counts for periods in (before, after))
    assert counts
    assert flipped_counts
    assert flipped_counts.positives == counts.labelled - counts.positives
    assert flipped_counts.alerts == counts.alerts


def test_the_rules_differ_as_their_names_say(shop: Engine) -> None:
    periods = lived(shop).periods
    always = [period.steps[Rule.ALWAYS] for period in periods]
    assert [step.champion for step in always] == [period.candidate for period in periods]
    never = [period.steps[Rule.NEVER].champion for period in periods]
    strict = [period.steps[Rule.STRICT].champion for period in periods]
    first = next(number for number, version in enumerate(strict) if version is not None)
    assert never == [None] * first + [strict[first]] * (len(periods) - first)


def test_weeks_in_which_nothing_can_be_trained_or_measured_are_passed_over(shop: Engine) -> None:
    change(shop, "delete from millrace.labels where ts >= :start", start=END - 2 * EVERY)
    early = Window(END - timedelta(days=16), END)
    periods = lived(shop, window=early).periods
    assert periods[0].candidate is None
    assert "no log line up to" in periods[0].why_not
    assert all(step.champion is None and step.counts is None for step in periods[0].steps.values())
    last = periods[-1].steps[Rule.ALWAYS]
    assert last.counts
    assert (last.counts.labelled, last.counts.f1) == (0, None)
    assert last.counts.rows > 100
    assert last.counts.alerts > 0


def test_without_any_log_it_says_what_to_do(engine: Engine) -> None:
    with pytest.raises(NothingToTrainOn, match="millrace ingest"):
        replay(engine, DETECTOR)


def test_a_range_of_too_many_periods_is_refused(engine: Engine) -> None:
    with pytest.raises(BadInput, match="shorter range"):
        lived(engine, window=Window(END - timedelta(days=9000), END), every=timedelta(days=1))


def test_the_command_prints_a_table_and_writes_a_page(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_DSN", shop.url.render_as_string(hide_password=False))
    page = tmp_path / "replay.html"
    command = ["replay", DETECTOR, "--from", "2026-02-23", "--to", "2026-03-01", "--every", "3"]
    assert main([*command, "--output", str(page), "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    told = json.loads(printed[-1])
    assert set(told["policies"]) == {rule.value for rule in Rule}
    assert [len(policy["periods"]) for policy in told["policies"].values()] == [2] * 4
    assert any(line.startswith("always-promote") for line in printed)
    content = page.read_text()
    assert "<svg" in content
    assert "<script" not in content
    with pytest.raises(SystemExit) as refusal:
        main([*command, "--output", str(page)])
    assert refusal.value.code == 2
    assert "exists already" in capsys.readouterr().err
