"""The sessions of a window, scored by those of the window before it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mllib.commands.common import Command, UsageError, add_window, count, ready_engine, window_of


def sessions(options: argparse.Namespace) -> dict[str, Any]:
    window = window_of(options)
    if window is None:
        raise UsageError("say which sessions: those that began --from TS --to TS")

    from mllib.detectors._explanation import plain_text
    from mllib.jobs.sessions import score_sessions

    report = score_sessions(ready_engine(), window, top=options.top)
    print(
        f"{report.scored:,} sessions of {report.window}, {report.anomalies:,} of them anomalies, {report.open:,} still "
        f"open; by {report.trained:,} {report.mode} sessions of {report.trained_on}, in {report.seconds:.1f} s."
    )
    for one in report.top:
        name = plain_text(one.trace_id)
        state = "open" if one.open else "over"
        print(f"\n{one.score:.3f}  {name}  {one.started_at:%Y-%m-%d %H:%M:%S}  {one.lines:,} lines, {state}")
        for feature in json.loads(one.explanation or "{}").get("features", ()):
            usual = f"  (usual: {_range(*feature['normal'])})" if "normal" in feature else ""
            print(f"       {feature['kind']}: {feature['name']}: {feature['value']}{usual}")
    return report.as_dict()


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("sessions", sessions, "score the sessions that began in a window, by those of the window before it")
    add_window(sub, required=True)
    sub.add_argument("--top", type=count, default=10, metavar="N", help="how many to show (default: 10)")
