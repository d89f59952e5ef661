"""The report of a verdict is written to a file, to be opened in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mllib.commands.common import Command, ready_engine


def report(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs import reporting

    found, content = reporting.find(ready_engine(), options.detector, options.version)
    path = reporting.write(found, content, options.output)
    print(path)
    return {"detector": found.detector, "version": found.version, "decision_id": found.decision_id, "path": path}


def register(command: Command) -> None:
    """Declares the command of this file."""
    sub = command("report", report, "write the report of a verdict, a page with pictures, to a file")
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument(
        "version", nargs="?", type=int, metavar="VERSION", help="the version judged (default: the latest verdict)"
    )
    sub.add_argument(
        "--output", type=Path, metavar="FILE", help="the file, which must not exist (default: one in this folder)"
    )
