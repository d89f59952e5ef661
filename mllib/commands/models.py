"""Models are trained, judged, promoted and rolled back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mllib.commands.common import Command, count, moment, ready_engine, user
from mllib.types import Policy


def train(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import train
    from mllib.jobs.training import TrainingOptions

    report = train(
        ready_engine(),
        options.detector,
        as_of=options.as_of,
        policy=Policy(options.policy),
        options=TrainingOptions(train_days=options.train_days, min_positives=options.min_positives),
        by=user(),
    )
    print(f"{report.detector} version {report.version}: {report.verdict}. {report.reason}")
    return report.as_dict()


def models(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.detectors import detector, names
    from mllib.store import registry
    from mllib.store.database import transaction

    if options.detector is not None:
        detector(options.detector)
    if options.at is not None:
        return _champions_at(options.at, [options.detector] if options.detector else names())
    with transaction(ready_engine()) as conn:
        versions = registry.versions(conn, options.detector)
    if not versions:
        print("No model yet. `millrace train log_anomaly` trains one.")
    for row in versions:
        f1 = "   -  " if row["f1"] is None else f"{row['f1']:.4f}"
        print(
            f"{row['detector']} {row['version']:>4}  {row['status']:<10} F1 {f1}  {row['reason'] or 'not judged yet'}"
        )
    return {"models": versions}


def _champions_at(moment: datetime, detectors: Sequence[str]) -> dict[str, Any]:
    from mllib.store import registry
    from mllib.store.database import transaction

    with transaction(ready_engine()) as conn:
        champions = {name: registry.champion_at(conn, name, moment) for name in detectors}
    for name, version in champions.items():
        who = "there was no champion" if version is None else f"version {version} was champion"
        print(f"{name}: {who} at {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC.")
    return {
        "at": moment.astimezone(UTC).isoformat(),
        "champions": [{"detector": name, "version": version} for name, version in champions.items()],
    }


def promote(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import promote

    old = promote(
        ready_engine(),
        options.detector,
        options.version,
        reason=options.reason,
        by=user(),
        against_current=options.against == "current",
    )
    before = "There was none before" if old is None else f"Before it was version {old}"
    print(f"{options.detector}: version {options.version} is champion now. {before}.")
    return {"detector": options.detector, "champion": options.version, "before": old}


def rollback(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import rollback

    done = rollback(ready_engine(), options.detector, reason=options.reason, by=user())
    print(
        f"{options.detector} went back from version {done.before} to version {done.champion}, in one transaction of "
        f"{done.milliseconds:.1f} ms."
    )
    return {"detector": options.detector, **asdict(done)}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("train", train, "the weekly job: train a candidate, judge it, promote or refuse it")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--as-of", type=moment, metavar="TS", help="use only what was known then (default: now)")
    sub.add_argument(
        "--policy", choices=[policy.value for policy in Policy], default="strict", help="strict (default) or evidence"
    )
    sub.add_argument(
        "--train-days", type=count, default=30, metavar="N", help="days of the training slice (default: 30)"
    )
    sub.add_argument(
        "--min-positives", type=count, default=30, metavar="N", help="labelled anomalies a verdict needs (default: 30)"
    )

    sub = command("models", models, "list model versions and the verdicts on them")
    sub.add_argument("detector", nargs="?", metavar="DETECTOR")
    sub.add_argument("--at", type=moment, metavar="TS", help="say instead who was champion at a time")

    sub = command("promote", promote, "make a version champion by hand, whatever the gate said")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("version", type=int, metavar="VERSION")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")
    sub.add_argument(
        "--against",
        choices=["judged", "current"],
        default="judged",
        help="replace only the champion it was judged against (default), or whoever is champion",
    )

    sub = command("rollback", rollback, "go back to the champion before this one")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")
