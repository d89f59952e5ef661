"""Log lines and verdicts on them come in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mllib.commands.common import Command, moment, ready_engine, user


def ingest(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.ingest.base import ParseOptions
    from mllib.jobs.intake import ingest

    report = ingest(
        ready_engine(),
        options.paths,
        format_name=options.format,
        source=options.source,
        with_labels=options.labels,
        options=ParseOptions(year=options.year, start=options.start),
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

    filed = label(ready_engine(), options.path, source=options.source, by=user())
    print(f"{filed:,} labels filed.")
    return {"labels": filed}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("ingest", ingest, "load log files; lines that cannot be read go to ingest_rejects")
    sub.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file (plain, gz, zst) or a folder of them")
    sub.add_argument("--format", default="auto", help="log format, or auto (default)")
    sub.add_argument("--source", help="name of the source (default: the file's name without suffixes)")
    sub.add_argument("--labels", action="store_true", help="also read the labels inside the format")
    sub.add_argument("--year", type=int, help="year of the first line, for formats whose times have none")
    sub.add_argument("--start", type=moment, metavar="TS", help="time of the first line, for formats without times")

    sub = command("label", label, "file verdicts from a CSV file with the columns [source,]id,label[,note]")
    sub.add_argument("path", type=Path, metavar="FILE.csv")
    sub.add_argument("--source", help="source of the labelled lines, where the file has no such column")
