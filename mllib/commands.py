"""What each command of the command line does: call a use case, print its report, return it for ``--json``.

The use cases are imported where they are called: importing them all would take longer than most commands.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mllib import settings
from mllib.types import Policy, Window

if TYPE_CHECKING:
    from sqlalchemy import Engine


class UsageError(Exception):
    """Options that are each right and do not go together."""


def _engine() -> Engine:
    from mllib.store.database import engine_for

    return engine_for(_dsn_in_use())


def _dsn_in_use() -> str:
    from mllib.local import stack

    return settings.dsn_from_environment() or stack.current_dsn(settings.home())


def _ready_engine() -> Engine:
    from mllib.store.migrate import require_schema

    engine = _engine()
    require_schema(engine)
    return engine


def up(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    print(stack.up(options.home, port=options.port, step=progress.shown))


def down(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    if not stack.down(options.home, step=progress.shown):
        print("Nothing was running.")


def status(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.local import stack

    status = stack.status(options.home)
    print(status)
    return status.as_dict()


def dsn(options: argparse.Namespace) -> None:
    dsn = _dsn_in_use()
    print(dsn if options.show else settings.redacted(dsn))


def migrate(_: argparse.Namespace) -> dict[str, Any]:
    from mllib.store.migrate import migrate

    ran = migrate(_engine())
    print(f"Ran {', '.join(ran)}." if ran else "The schema is up to date.")
    return {"ran": ran}


def ingest(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.ingest.base import ParseOptions
    from mllib.jobs.intake import ingest

    report = ingest(
        _ready_engine(),
        options.paths,
        format_name=options.format,
        source=options.source,
        with_labels=options.labels,
        options=ParseOptions(year=options.year),
    )
    print(
        f"{report.files:,} files, {report.rows:,} rows, {report.rejected:,} rejected, {report.labels:,} labels "
        f"in {report.seconds:.1f} s."
    )
    for path, reason in report.skipped.items():
        print(f"Skipped {path}: {reason}.")
    for reject in report.main_rejects:
        print(f"Rejected in {reject}")
    return report.as_dict()


def label(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.labelling import label

    filed = label(_ready_engine(), options.path, source=options.source, by=_user())
    print(f"{filed:,} labels filed.")
    return {"labels": filed}


def train(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import train
    from mllib.jobs.training import TrainingOptions

    report = train(
        _ready_engine(),
        options.detector,
        as_of=options.as_of,
        policy=Policy(options.policy),
        options=TrainingOptions(train_days=options.train_days, min_positives=options.min_positives),
        by=_user(),
    )
    print(f"{report.detector} version {report.version}: {report.verdict}. {report.reason}")
    return report.as_dict()


def score(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    window = _window(options)

    from mllib.jobs.scoring import score

    report = score(_ready_engine(), options.detector, window=window, version=options.model, started=started)
    print(
        f"{report.scored:,} rows scored by {report.detector} version {report.model_version}, {report.anomalies:,} "
        f"anomalies, in {report.seconds:.1f} s."
    )
    return report.as_dict()


def rescore(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    window = _window(options)
    if (window is None) == (options.plan is None):
        raise UsageError("give either a range, --from TS --to TS, or the number of a plan, --plan ID")

    from mllib.jobs import rescoring
    from mllib.store.rescoring import ModelChoice

    engine, key = _ready_engine(), f"cli-{uuid.uuid4()}"
    if window is None:
        plan = rescoring.show(engine, options.plan)
        if plan.detector != options.detector:
            raise UsageError(f"plan {plan.plan_id} is one of {plan.detector}")
    else:
        model = options.model if isinstance(options.model, int) else ModelChoice(options.model)
        plan = rescoring.plan(
            engine, options.detector, window, model=model, reason=options.reason, run_key=key, by=_user()
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
    window = _window(options)

    from mllib.detectors import detector
    from mllib.store.backlog import hours_without_run
    from mllib.store.database import transaction

    detector(options.detector)
    with transaction(_ready_engine()) as conn:
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


def _window(options: argparse.Namespace) -> Window | None:
    """The window of ``--from`` and ``--to``, None without them."""
    if options.start is None and options.end is None:
        return None
    if options.start is None or options.end is None:
        raise UsageError("a window needs both ends: --from TS --to TS")
    if options.start >= options.end:
        raise UsageError("the window is empty: --from must be before --to")
    return Window(options.start, options.end)


def models(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.detectors import detector
    from mllib.store import registry
    from mllib.store.database import transaction

    if options.detector is not None:
        detector(options.detector)
    with transaction(_ready_engine()) as conn:
        versions = registry.versions(conn, options.detector)
    if not versions:
        print("No model yet. `millrace train log_anomaly` trains one.")
    for row in versions:
        f1 = "   -  " if row["f1"] is None else f"{row['f1']:.4f}"
        print(
            f"{row['detector']} {row['version']:>4}  {row['status']:<10} F1 {f1}  {row['reason'] or 'not judged yet'}"
        )
    return {"models": versions}


def promote(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import promote

    old = promote(
        _ready_engine(),
        options.detector,
        options.version,
        reason=options.reason,
        by=_user(),
        against_current=options.against == "current",
    )
    print(f"{options.detector} version {options.version} is champion now (before: {old or 'none'}).")
    return {"detector": options.detector, "champion": options.version, "before": old}


def rollback(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import rollback

    old, new = rollback(_ready_engine(), options.detector, reason=options.reason, by=_user())
    print(f"{options.detector} went back from version {old} to version {new}.")
    return {"detector": options.detector, "champion": new, "before": old}


def doctor(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.doctor import Patience, examine

    report = examine(_engine(), patience=Patience(stuck=timedelta(minutes=options.stuck_after)))
    for finding in report.findings:
        print(f"{finding.severity}: {finding.message}\n    {finding.command}")
    if report.ok:
        print("Every promise holds.")
    return report.as_dict()


def maintain(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.maintenance import described, maintain

    done = maintain(_ready_engine(), tidy=options.tidy)
    print("\n".join(described(done)))
    return done


def retain(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.store import retention
    from mllib.store.database import transaction

    if options.table is not None and options.days is None:
        raise UsageError("say for how long: a number of days, or forever")
    with transaction(_ready_engine()) as conn:
        if options.table is not None:
            retention.keep(conn, options.table, options.days or None)
        kept = {rule.parent: rule.keep_days for rule in retention.settings(conn)}
    for parent, days in kept.items():
        print(f"{parent:<20} {'for ever' if days is None else f'{days} days'}")
    return {"keep_days": kept}


def adopt(_: argparse.Namespace) -> dict[str, Any]:
    from mllib.store.identity import adopt

    advanced = adopt(
        _ready_engine(),
        progress=lambda done, all_: print(f"{done:,} of {all_:,} transaction ids passed over", file=sys.stderr),
    )
    if advanced is None:
        print("This database is at home in its cluster; there is nothing to do.")
    else:
        print(f"Adopted; {advanced:,} transaction ids were passed over. Run `millrace doctor` now.")
    return {"adopted": advanced is not None, "advanced": advanced or 0}


def _user() -> str:
    try:
        return getpass.getuser()
    except OSError:  # an account without a name, as in a container
        return "unknown"
