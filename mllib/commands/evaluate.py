"""A detector is evaluated on files: no database, one JSON object."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mllib.commands.common import Command, UsageError, count

FIRST_SEED = 42


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    if options.leave_one_out and options.test:
        raise UsageError("--leave-one-out measures on each file in turn, so there is nothing for --test")
    if options.split is not None and (options.test or options.leave_one_out):
        raise UsageError("--split cuts the rows of all files by time, so it does not go with --test or --leave-one-out")

    from mllib.ingest.base import ParseOptions
    from mllib.jobs.evaluating import Protocol, evaluate

    seeds = (options.seed,) if options.seed is not None else range(FIRST_SEED, FIRST_SEED + options.seeds)
    found = evaluate(
        options.detector,
        options.paths,
        Protocol(
            test=tuple(options.test),
            leave_one_out=options.leave_one_out,
            split=0.7 if options.split is None else options.split,
            by_class=options.by_class,
            no_labels=options.no_labels,
            alerts_per_day=options.alerts_per_day,
            masked=tuple(options.mask_column),
            seeds=tuple(seeds),
        ),
        format_name=options.format,
        labels=options.labels,
        options=ParseOptions(year=options.year),
    )
    if not options.json:
        print(json.dumps(found, indent=2))
    return found


def register(command: Command) -> None:
    """Declares the command of this file."""
    sub = command(
        "evaluate", evaluate, "measure a detector on labelled files, as the gate would; prints one JSON object"
    )
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="files as for ingest; labels inside count")
    sub.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="FILE", help="measure on these, learn from the others"
    )
    sub.add_argument("--leave-one-out", action="store_true", help="measure on each file in turn, learn from the others")
    sub.add_argument(
        "--split",
        type=share,
        metavar="SHARE",
        help="share of the rows, the first by time, to learn from (default: 0.7)",
    )
    sub.add_argument("--by-class", action="store_true", help="take that share of each class")
    sub.add_argument("--format", help="format of the files (default: found by their first lines)")
    sub.add_argument("--labels", type=Path, metavar="FILE.csv", help="verdicts, as for the command label")
    sub.add_argument("--year", type=int, help="year of the first line, for formats whose times have none")
    sub.add_argument("--no-labels", action="store_true", help="learn without labels; they only measure")
    sub.add_argument(
        "--alerts-per-day",
        type=_budget,
        default=50.0,
        metavar="N",
        help="budget that chooses the threshold without labels (default: 50)",
    )
    sub.add_argument(
        "--mask-column", action="append", default=[], metavar="NAME", help="a column that the model is not shown"
    )
    seeds = sub.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_seed, metavar="N", help="this seed alone")
    seeds.add_argument(
        "--seeds", type=count, default=5, metavar="N", help=f"so many seeds, from {FIRST_SEED} on (default: 5)"
    )


def share(text: str) -> float:
    """A share between 0 and 1, as an argument."""
    return _between(text, 1.0, "a share between 0 and 1")


def _budget(text: str) -> float:
    return _between(text, 1e9, "a number of alerts a day, above 0")


def _between(text: str, end: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < end:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**32 - 1}")
    return int(text)
