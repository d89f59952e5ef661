"""A model version is trained again, and compared with what is on record."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mllib.commands.common import Command, count, ready_engine

if TYPE_CHECKING:
    from mllib.reproduction import Reproduction


def reproduce(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.jobs.reproducing import reproduce

    found = reproduce(ready_engine(), options.detector, options.version)
    print(f"{found.detector} version {found.version}: {found.verdict}.")
    for name, what in _figures(found):
        print(f"  {name:<14} {what}")
    for reason in found.reasons:
        print(f"- {reason}")
    return found.as_dict()


def _figures(found: Reproduction) -> list[tuple[str, str]]:
    then, now = found.then, found.now
    if now is None:
        return []
    figures = [
        ("training rows", f"{_compared(found.same_rows, f'{then.training_rows:,}', f'{now.training_rows:,}')}"),
        ("threshold", _compared(then.threshold == now.threshold, f"{then.threshold:.9g}", f"{now.threshold:.9g}")),
        (
            "artifact",
            _compared(then.artifact_digest == now.artifact_digest, then.artifact_digest[:12], now.artifact_digest[:12]),
        ),
    ]
    scores = found.scores
    if scores is not None and scores.largest is None:
        figures.append(("scores", "no row is left that both models could score"))
    elif scores is not None:
        figures.append(
            (
                "scores",
                f"differ by at most {scores.largest:.3g} on {scores.rows:,} holdout rows; "
                f"{scores.verdicts:,} verdicts differ",
            )
        )
    return figures


def _compared(same: bool, then: str, now: str) -> str:
    return f"{then}, the same" if same else f"{then} then, {now} now, not the same"


def register(command: Command) -> None:
    """Declares the command of this file."""
    sub = command(
        "reproduce", reproduce, "train a version again from its lineage, and say whether it comes out the same"
    )
    sub.add_argument("detector", metavar="DETECTOR")
    sub.add_argument("version", type=count, metavar="VERSION")
