"""The command line. Each command is a thin call of a use case; ``--json`` prints one JSON object on the last line.

Exit codes: 0 done, 1 failed (one clear sentence on stderr), 2 usage.
"""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllib import settings
from mllib.errors import MillraceError
from mllib.types import Policy, Window

if TYPE_CHECKING:  # SQLAlchemy takes a second to import, and `--help` does not need it
    from sqlalchemy import Engine


class _UsageError(Exception):
    """Options that are each right and do not go together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        result = options.run(options)
    except _UsageError as error:
        parser.error(str(error))
    except MillraceError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("millrace: stopped. What was not finished goes on with the next run.", file=sys.stderr)
        return 1
    if getattr(options, "json", False):
        print(json.dumps(result, default=str))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace",
        description="Scores logs in batch, retrains the models, and promotes one only when it is better.",
        epilog="MILLRACE_DSN names the database; without it, the local one of `millrace up`.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        if as_json:
            sub.add_argument(
                "--json", action="store_true", help="print the result as one JSON object, on the last line"
            )
        return sub

    sub = command("up", _up, "start the local stack: PostgreSQL and Airflow", as_json=False)
    sub.add_argument("--port", type=int, help="port of the web page; moves on if taken")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")
    sub = command("down", _down, "stop the local stack", as_json=False)
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")
    sub = command("status", _status, "show what of the local stack is running")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")

    sub = command("dsn", _dsn, "print the connection string in use", as_json=False)
    sub.add_argument("--show", action="store_true", help="with the password")
    command("migrate", _migrate, "bring the database to this version's schema")

    sub = command("ingest", _ingest, "load log files; lines that cannot be read go to ingest_rejects")
    sub.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, plain or gz, or a folder of them")
    sub.add_argument("--format", default="auto", help="log format, or auto (default)")
    sub.add_argument("--source", help="name of the source (default: the file's name without suffixes)")
    sub.add_argument("--labels", action="store_true", help="also read the labels inside the format")
    sub.add_argument("--year", type=int, help="year of the first line, for formats whose times have none")

    sub = command("label", _label, "file verdicts from a CSV file with the columns [source,]id,label[,note]")
    sub.add_argument("path", type=Path, metavar="FILE.csv")
    sub.add_argument("--source", help="source of the labelled lines, where the file has no such column")

    sub = command("train", _train, "the weekly job: train a candidate, judge it, promote or refuse it")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--as-of", type=_moment, metavar="TS", help="use only what was known then (default: now)")
    sub.add_argument(
        "--policy", choices=[policy.value for policy in Policy], default="strict", help="strict (default) or evidence"
    )
    sub.add_argument(
        "--train-days", type=_count, default=30, metavar="N", help="days of the training slice (default: 30)"
    )
    sub.add_argument(
        "--min-positives", type=_count, default=30, metavar="N", help="labelled anomalies a verdict needs (default: 30)"
    )

    sub = command("score", _score, "score the newly ingested rows, or all rows of a window")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--from", dest="start", type=_moment, metavar="TS", help="first event time of the window")
    sub.add_argument("--to", dest="end", type=_moment, metavar="TS", help="end of the window, itself left out")
    sub.add_argument("--model", type=int, metavar="VERSION", help="version to score with (default: the champion)")

    sub = command("models", _models, "list model versions and the verdicts on them")
    sub.add_argument("detector", nargs="?", metavar="DETECTOR")
    sub = command("promote", _promote, "make a version champion by hand, whatever the gate said")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("version", type=int, metavar="VERSION")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")
    sub.add_argument(
        "--against",
        choices=["judged", "current"],
        default="judged",
        help="replace only the champion it was judged against (default), or whoever is champion",
    )
    sub = command("rollback", _rollback, "go back to the champion before this one")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")
    return parser


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


def _up(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    print(stack.up(options.home, port=options.port, step=progress.shown))


def _down(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    if not stack.down(options.home, step=progress.shown):
        print("Nothing was running.")


def _status(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.local import stack

    status = stack.status(options.home)
    print(status)
    return status.as_dict()


def _dsn(options: argparse.Namespace) -> None:
    dsn = _dsn_in_use()
    print(dsn if options.show else settings.redacted(dsn))


def _migrate(_: argparse.Namespace) -> dict[str, Any]:
    from mllib.store.migrate import migrate

    ran = migrate(_engine())
    print(f"Ran {', '.join(ran)}." if ran else "The schema is up to date.")
    return {"ran": ran}


def _ingest(options: argparse.Namespace) -> dict[str, Any]:
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


def _label(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.intake import label

    filed = label(_ready_engine(), options.path, source=options.source, by=_user())
    print(f"{filed:,} labels filed.")
    return {"labels": filed}


def _train(options: argparse.Namespace) -> dict[str, Any]:
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


def _score(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    window = None
    if options.start is not None or options.end is not None:
        if options.start is None or options.end is None:
            raise _UsageError("a window needs both ends: --from TS --to TS")
        if options.start >= options.end:
            raise _UsageError("the window is empty: --from must be before --to")
        window = Window(options.start, options.end)

    from mllib.jobs.scoring import score

    report = score(_ready_engine(), options.detector, window=window, version=options.model, started=started)
    print(
        f"{report.scored:,} rows scored by {report.detector} version {report.model_version}, {report.anomalies:,} "
        f"anomalies, in {report.seconds:.1f} s."
    )
    return report.as_dict()


def _models(options: argparse.Namespace) -> dict[str, Any]:
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


def _promote(options: argparse.Namespace) -> dict[str, Any]:
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


def _rollback(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.judging import rollback

    old, new = rollback(_ready_engine(), options.detector, reason=options.reason, by=_user())
    print(f"{options.detector} went back from version {old} to version {new}.")
    return {"detector": options.detector, "champion": new, "before": old}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write 2026-01-31T14:00 (UTC) or with an offset"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _user() -> str:
    try:
        return getpass.getuser()
    except OSError:  # an account without a name, as in a container
        return "unknown"
