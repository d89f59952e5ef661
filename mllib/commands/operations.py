"""What an operator does now and then."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import Any

from mllib.commands.common import Command, UsageError, count, engine, ready_engine


def doctor(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.doctor import Patience, examine

    report = examine(engine(), patience=Patience(stuck=timedelta(minutes=options.stuck_after)))
    for finding in report.findings:
        print(f"{finding.severity}: {finding.message}\n    {finding.command}")
    if report.ok:
        print("Every promise holds.")
    return report.as_dict()


def maintain(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.maintenance import described, maintain

    done = maintain(ready_engine(), tidy=options.tidy)
    print("\n".join(described(done)))
    return done


def retain(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.store import retention
    from mllib.store.database import transaction

    if options.table is not None and options.days is None:
        raise UsageError("say for how long: a number of days, or forever")
    with transaction(ready_engine()) as conn:
        if options.table is not None:
            retention.keep(conn, options.table, options.days or None)
        kept = {rule.parent: rule.keep_days for rule in retention.settings(conn)}
    for parent, days in kept.items():
        print(f"{parent:<20} {'for ever' if days is None else f'{days} days'}")
    return {"keep_days": kept}


def adopt(_: argparse.Namespace) -> dict[str, Any]:
    from mllib.store.identity import adopt

    advanced = adopt(
        ready_engine(),
        progress=lambda done, all_: print(f"{done:,} of {all_:,} transaction ids passed over", file=sys.stderr),
    )
    if advanced is None:
        print("This database is at home in its cluster; there is nothing to do.")
    else:
        print(f"Adopted; {advanced:,} transaction ids were passed over. Run `millrace doctor` now.")
    return {"adopted": advanced is not None, "advanced": advanced or 0}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command(
        "doctor",
        doctor,
        "check every promise against the data, and name the commands that mend what is broken",
    )
    sub.add_argument(
        "--stuck-after", type=float, default=1, metavar="MINUTES", help="when an open run counts as stuck (default: 1)"
    )

    sub = command("maintain", maintain, "make partitions ahead, sort stray rows into theirs, and drop what is over")
    sub.add_argument("--tidy", action="store_true", help="also put away what belongs to deleted rows, and recount")

    sub = command("retain", retain, "say how long the rows of a table are kept, or show it")
    sub.add_argument("table", nargs="?", metavar="TABLE", help="logs, predictions or predictions_history")
    sub.add_argument("days", nargs="?", type=_days, metavar="DAYS", help="days of event time, or forever")

    command("adopt", adopt, "make a database that was restored from another cluster at home in this one")


def _days(text: str) -> int:
    return 0 if text == "forever" else count(text)
