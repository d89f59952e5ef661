"""Sessions of a window, scored by those of the window before it; and of files, measured by their labels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mllib.commands.common import Command, UsageError, add_window, count, ready_engine, window_of
from mllib.commands.evaluate import FIRST_SEED, share


def sessions(options: argparse.Namespace) -> dict[str, Any]:
    window = window_of(options)
    if window is None:
        raise UsageError("say which sessions: those that began --from TS --to TS")

    from mllib.detectors._texts import plain_text
    from mllib.jobs.sessions import score_sessions

    report = score_sessions(ready_engine(), window, top=options.top)
    print(report.described())
    for one in report.top:
        name = plain_text(one.trace_id)
        state = "open" if one.open else "over"
        print(f"\n{one.score:.3f}  {name}  {one.started_at:%Y-%m-%d %H:%M:%S}  {one.lines:,} lines, {state}")
        for feature in json.loads(one.explanation or "{}").get("features", ()):
            usual = f"  (usual: {_range(*feature['normal'])})" if "normal" in feature else ""
            print(f"       {feature['kind']}: {feature['name']}: {feature['value']}{usual}")
    return report.as_dict()


def evaluate_sessions(options: argparse.Namespace) -> dict[str, Any]:
    if options.split is not None and options.test:
        raise UsageError("--split cuts the sessions of all files by time, so it does not go with --test")

    from mllib.ingest.base import ParseOptions
    from mllib.jobs.evaluating_sessions import evaluate_session_files

    found = evaluate_session_files(
        options.paths,
        test=options.test,
        split=0.7 if options.split is None else options.split,
        shown=options.shown,
        seeds=range(FIRST_SEED, FIRST_SEED + options.seeds),
        labels=options.labels,
        format_name=options.format,
        options=ParseOptions(year=options.year),
    )
    if not options.json:
        print(json.dumps(found, indent=2))
    return found


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("sessions", sessions, "score the sessions that began in a window, by those of the window before it")
    add_window(sub, required=True)
    sub.add_argument("--top", type=count, default=10, metavar="N", help="how many to show (default: 10)")

    sub = command(
        "evaluate-sessions", evaluate_sessions, "measure the session view on labelled files; prints one JSON object"
    )
    sub.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="files as for ingest; labels inside count")
    sub.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="FILE", help="measure on these, learn from the others"
    )
    sub.add_argument(
        "--split",
        type=share,
        metavar="SHARE",
        help="share of the sessions, the first to begin, to learn from (default: 0.7)",
    )
    sub.add_argument(
        "--shown",
        default="all",
        metavar="LABELS",
        help="labels that training may see: all, none, normal (only normal sessions), or a share of them such as 0.1",
    )
    sub.add_argument("--labels", type=Path, metavar="FILE.csv", help="a session and its verdict in each line")
    sub.add_argument("--format", help="format of the files (default: found by their first lines)")
    sub.add_argument("--year", type=int, help="year of the first line, for formats whose times have none")
    sub.add_argument(
        "--seeds", type=count, default=5, metavar="N", help=f"so many seeds, from {FIRST_SEED} on (default: 5)"
    )
