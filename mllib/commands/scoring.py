"""Rows are scored: new ones, a window, or a range again by a plan."""

from __future__ import annotations

import argparse
import time
import uuid
from typing import Any

from mllib.commands.common import Command, UsageError, add_window, count, moment, ready_engine, user, window_of


def score(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    window = window_of(options)

    from mllib.jobs.scoring import score

    report = score(ready_engine(), options.detector, window=window, version=options.model, started=started)
    print(
        f"{report.scored:,} rows scored by {report.detector} version {report.model_version}, {report.anomalies:,} "
        f"anomalies, in {report.seconds:.1f} s."
    )
    return report.as_dict()


def rescore(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    window = window_of(options)
    if (window is None) == (options.plan is None):
        raise UsageError("give either a range, --from TS --to TS, or the number of a plan, --plan ID")

    from mllib.jobs import rescoring
    from mllib.store.rescoring import ModelChoice

    engine, key = ready_engine(), f"cli-{uuid.uuid4()}"
    if window is None:
        plan = rescoring.show(engine, options.plan)
        if plan.detector != options.detector:
            raise UsageError(f"plan {plan.plan_id} is one of {plan.detector}")
    else:
        model = options.model if isinstance(options.model, int) else ModelChoice(options.model)
        plan = rescoring.plan(
            engine, options.detector, window, model=model, reason=options.reason, run_key=key, by=user()
        )
    print(rescoring.as_table(plan))
    shown = {
        "detector": plan.detector,
        "plan": plan.plan_id,
        "rows": plan.rows,
        "left_out": plan.left_out,
        "changes": plan.changes,
        "exact": plan.exact,
        "pieces": [
            {"from": piece.window.start, "to": piece.window.end, "version": piece.model_version, "rows": piece.rows}
            for piece in plan.pieces
        ],
        "hours": {hour.isoformat(): rows for hour, rows in plan.hours.items()},
    }
    if options.dry_run:
        print(f"\nNothing was scored. `millrace rescore {plan.detector} --plan {plan.plan_id}` runs exactly this.")
        return {**shown, "dry_run": True}
    report = rescoring.execute(engine, plan.plan_id, run_key=key, started=started)
    print(f"\n{report.scored:,} rows scored, {report.anomalies:,} anomalies, in {report.seconds:.1f} s.")
    done = {"scored": report.scored, "anomalies": report.anomalies, "runs": report.runs, "seconds": report.seconds}
    return {**shown, "dry_run": False, **done}


def backlog(options: argparse.Namespace) -> dict[str, Any]:
    window = window_of(options)

    from mllib.detectors import detector
    from mllib.store.backlog import hours_without_run
    from mllib.store.database import transaction

    detector(options.detector)
    with transaction(ready_engine()) as conn:
        hours = hours_without_run(conn, options.detector, window, since=options.since) if window else []
    for hour in hours:
        print(f"{hour.window}  {hour.rows:>10,} rows  {'being scored, or left open' if hour.open else 'not scored'}")
    print(f"{len(hours):,} hours, {sum(hour.rows for hour in hours):,} rows.")
    if hours:
        first, last = hours[0].window.start, hours[-1].window.end
        print(
            f"`millrace rescore {options.detector} --from {first:%Y-%m-%dT%H:%M:%S} --to {last:%Y-%m-%dT%H:%M:%S}` "
            "scores all of that range."
        )
    listed = [{"from": h.window.start, "to": h.window.end, "rows": h.rows, "open": h.open} for h in hours]
    return {"detector": options.detector, "hours": listed}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("score", score, "score the newly ingested rows, or all rows of a window")
    sub.add_argument("detector", metavar="DETECTOR")
    add_window(sub)
    sub.add_argument("--model", type=int, metavar="VERSION", help="version to score with (default: the champion)")

    sub = command("rescore", rescore, "score a range of event time again, by a plan that is shown first")
    sub.add_argument("detector", metavar="DETECTOR")
    add_window(sub, "range")
    sub.add_argument(
        "--model",
        type=_model,
        default="champion",
        metavar="champion|as-of-then|VERSION",
        help="the champion now (default), whoever was champion at a row's time, or a version",
    )
    sub.add_argument("--reason", help="why; kept with the plan")
    sub.add_argument("--dry-run", action="store_true", help="only make the plan and show it")
    sub.add_argument("--plan", type=count, metavar="ID", help="run this plan, exactly as it was made")

    sub = command("backlog", backlog, "list the hours of a range that no run over event times has scored")
    sub.add_argument("detector", metavar="DETECTOR")
    add_window(sub, "range", required=True)
    sub.add_argument("--since", type=moment, metavar="TS", help="count only runs that were claimed from then on")


def _model(text: str) -> str | int:
    if text in ("champion", "as-of-then"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither champion nor as-of-then nor the number of a version")
