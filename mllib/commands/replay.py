"""Months are lived through in minutes, to see which promotion policy would have done best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mllib.commands.common import Command, UsageError, add_window, count, ready_engine, window_of


def replay(options: argparse.Namespace) -> dict[str, Any]:
    from datetime import timedelta

    window = window_of(options)
    output: Path | None = options.output
    if output is not None and output.exists():
        raise UsageError(f"{output} exists already; name another file for --output, or remove it")

    from mllib.jobs.replaying import replay
    from mllib.jobs.training import TrainingOptions
    from mllib.replay_page import as_table, draw, render

    lived = replay(
        ready_engine(),
        options.detector,
        window=window,
        every=timedelta(days=options.every),
        options=TrainingOptions(
            train_days=options.train_days,
            min_positives=options.min_positives,
            label_delay=timedelta(hours=options.label_delay),
        ),
    )
    print(as_table(lived))
    if output is not None:
        output.write_text(draw(lived) if output.suffix == ".svg" else render(lived), encoding="utf-8")
        print(f"\n{output} shows F1 over time.")
    return {**lived.as_dict(), "output": str(output) if output else None}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("replay", replay, "live through a range of labelled logs under four promotion policies")
    sub.add_argument("detector", metavar="DETECTOR")
    add_window(sub, "range (default: all logs)")
    sub.add_argument("--every", type=count, default=7, metavar="DAYS", help="days between retrainings (default: 7)")
    sub.add_argument(
        "--train-days", type=count, default=30, metavar="N", help="days of the training slice (default: 30)"
    )
    sub.add_argument(
        "--min-positives", type=count, default=30, metavar="N", help="labelled anomalies a verdict needs (default: 30)"
    )
    sub.add_argument(
        "--label-delay", type=_hours, default=0, metavar="HOURS", help="how long labels take to ripen (default: 0)"
    )
    sub.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write a page with the picture as one HTML file, or the picture alone to FILE.svg",
    )


def _hours(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of hours")
    return int(text)
