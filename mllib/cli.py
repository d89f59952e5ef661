"""The command line. Each command is a thin call of a use case; ``--json`` prints one JSON object on the last line.

Exit codes: 0 done, 1 failed (one clear sentence on stderr), 2 usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mllib import commands, settings
from mllib.errors import MillraceError
from mllib.types import Policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        result = options.run(options)
    except commands.UsageError as error:
        parser.error(str(error))
    except MillraceError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("millrace: stopped. What was not finished goes on with the next run.", file=sys.stderr)
        return 1
    if getattr(options, "json", False):
        print(json.dumps(result, default=str))
    return 1 if isinstance(result, dict) and result.get("ok") is False else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace",
        description="Scores logs in batch, retrains the models, and promotes one only when it is better.",
        epilog="MILLRACE_DSN names the database; without it, the local one of `millrace up`.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        if as_json:
            sub.add_argument(
                "--json", action="store_true", help="print the result as one JSON object, on the last line"
            )
        return sub

    sub = command("up", commands.up, "start the local stack: PostgreSQL and Airflow", as_json=False)
    sub.add_argument("--port", type=int, help="port of the web page; moves on if taken")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")
    sub = command("down", commands.down, "stop the local stack", as_json=False)
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")
    sub = command("status", commands.status, "show what of the local stack is running")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")

    sub = command("dsn", commands.dsn, "print the connection string in use", as_json=False)
    sub.add_argument("--show", action="store_true", help="with the password")
    command("migrate", commands.migrate, "bring the database to this version's schema")

    sub = command("ingest", commands.ingest, "load log files; lines that cannot be read go to ingest_rejects")
    sub.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file (plain, gz, zst) or a folder of them")
    sub.add_argument("--format", default="auto", help="log format, or auto (default)")
    sub.add_argument("--source", help="name of the source (default: the file's name without suffixes)")
    sub.add_argument("--labels", action="store_true", help="also read the labels inside the format")
    sub.add_argument("--year", type=int, help="year of the first line, for formats whose times have none")

    sub = command("label", commands.label, "file verdicts from a CSV file with the columns [source,]id,label[,note]")
    sub.add_argument("path", type=Path, metavar="FILE.csv")
    sub.add_argument("--source", help="source of the labelled lines, where the file has no such column")

    sub = command("train", commands.train, "the weekly job: train a candidate, judge it, promote or refuse it")
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

    sub = command("score", commands.score, "score the newly ingested rows, or all rows of a window")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--from", dest="start", type=_moment, metavar="TS", help="first event time of the window")
    sub.add_argument("--to", dest="end", type=_moment, metavar="TS", help="end of the window, itself left out")
    sub.add_argument("--model", type=int, metavar="VERSION", help="version to score with (default: the champion)")

    sub = command("rescore", commands.rescore, "score a range of event time again, by a plan that is shown first")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--from", dest="start", type=_moment, metavar="TS", help="first event time of the range")
    sub.add_argument("--to", dest="end", type=_moment, metavar="TS", help="end of the range, itself left out")
    sub.add_argument(
        "--model",
        type=_model,
        default="champion",
        metavar="champion|as-of-then|VERSION",
        help="the champion now (default), whoever was champion at a row's time, or a version",
    )
    sub.add_argument("--reason", help="why; kept with the plan")
    sub.add_argument("--dry-run", action="store_true", help="only make the plan and show it")
    sub.add_argument("--plan", type=_count, metavar="ID", help="run this plan, exactly as it was made")

    sub = command("backlog", commands.backlog, "list the hours of a range that no run over event times has scored")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--from", dest="start", type=_moment, required=True, metavar="TS", help="start of the range")
    sub.add_argument("--to", dest="end", type=_moment, required=True, metavar="TS", help="its end, itself left out")
    sub.add_argument("--since", type=_moment, metavar="TS", help="count only runs that were claimed from then on")

    sub = command("models", commands.models, "list model versions and the verdicts on them")
    sub.add_argument("detector", nargs="?", metavar="DETECTOR")
    sub = command("promote", commands.promote, "make a version champion by hand, whatever the gate said")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("version", type=int, metavar="VERSION")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")
    sub.add_argument(
        "--against",
        choices=["judged", "current"],
        default="judged",
        help="replace only the champion it was judged against (default), or whoever is champion",
    )
    sub = command("rollback", commands.rollback, "go back to the champion before this one")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("--reason", required=True, help="why; kept with the decision")

    sub = command(
        "doctor",
        commands.doctor,
        "check every promise against the data, and name the commands that mend what is broken",
    )
    sub.add_argument(
        "--stuck-after", type=float, default=1, metavar="MINUTES", help="when an open run counts as stuck (default: 1)"
    )
    sub = command(
        "maintain", commands.maintain, "make partitions ahead, sort stray rows into theirs, and drop what is over"
    )
    sub.add_argument("--tidy", action="store_true", help="also put away what belongs to deleted rows, and recount")
    sub = command("retain", commands.retain, "say how long the rows of a table are kept, or show it")
    sub.add_argument("table", nargs="?", metavar="TABLE", help="logs, predictions or predictions_history")
    sub.add_argument("days", nargs="?", type=_days, metavar="DAYS", help="days of event time, or forever")
    command("adopt", commands.adopt, "make a database that was restored from another cluster at home in this one")
    return parser


def _days(text: str) -> int:
    return 0 if text == "forever" else _count(text)


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


def _model(text: str) -> str | int:
    if text in ("champion", "as-of-then"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither champion nor as-of-then nor the number of a version")
