"""How fast lines come in: parsed, copied and committed, with the processor time of both sides.

By a whole process, whose start is part of it, and in a process that has ingested before, as a worker has.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

from mllib import demo
from mllib.jobs.intake import ingest
from mllib.store.database import engine_for, transaction
from tests.bench.common import database, millrace, table
from tests.bench.costs import Cost, Meter

LINES = 300_000
RUNS = 5
START = datetime(2005, 6, 3, tzinfo=UTC)
FORGET = "truncate millrace.logs, millrace.labels, millrace.ingest_files, millrace.ingest_rejects cascade"
MESSAGES = (
    "instruction cache parity error corrected",
    "generating core.{}",
    "CE sym {}, at 0x0b85eee0, mask 0x05",
    "ciod: failed to read message prefix on control stream (CioStream socket to 172.16.96.116:{})",
    "total of {} ddr error(s) detected and corrected",
)


def run(_: Path | None) -> None:
    """Lines like Blue Gene's, without and with their labels, and JSON lines with theirs."""
    figures = []
    with database() as (folder, dsn):
        meter, engine = Meter(folder), engine_for(dsn)
        write_bgl_lines(folder / "bgl.log", LINES)
        demo.generate(folder / "json", rows=LINES)
        for name, path, given, labels in (
            ("BGL-like", folder / "bgl.log", "bgl", False),
            ("BGL-like, with labels", folder / "bgl.log", "bgl", True),
            ("JSON lines, with labels", folder / "json", "auto", True),
        ):
            options = ["--format", given, *(["--labels"] if labels else [])]
            whole, warm, peaks = [], [], []
            for turn in range(RUNS + 1):
                _forget(engine)
                cost, said = meter.cost(lambda path=path, options=options: millrace(dsn, "ingest", str(path), *options))
                _forget(engine)
                again, report = meter.cost(
                    lambda path=path, given=given, labels=labels: ingest(
                        engine, [path], format_name=given, with_labels=labels
                    )
                )
                assert said["rows"] == report.rows == LINES, said
                if turn:  # before that, nothing is warm
                    whole.append(cost)
                    warm.append(again)
                    peaks.append(said["peak_mib"])
            figures += [
                {"what": name, **_figures(whole), "peak, MiB": max(peaks)},
                {"what": f"{name}, warm", **_figures(warm), "peak, MiB": None},
            ]
        engine.dispose()
    table(f"{LINES:,} lines, medians of {RUNS}", figures)


def _forget(engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.execute(text(FORGET))


def write_bgl_lines(path: Path, lines: int) -> None:
    """Twenty lines a second, 7 % of them alerts, in the form of Blue Gene/L."""
    rng = np.random.default_rng(1)
    micros, numbers, alerts = rng.integers(0, 10**6, lines), rng.integers(0, 90_000, lines), rng.random(lines) < 0.07
    with path.open("w") as file:
        for line in range(lines):
            utc = START + timedelta(seconds=line // 20)
            local = utc - timedelta(hours=7)
            node = f"R{numbers[line] % 64:02d}-M{line % 2}-N{line % 16}-C:J{line % 17:02d}-U01"
            tag, level = ("KERNDTLB", "FATAL") if alerts[line] else ("-", "INFO")
            stamp = f"{local:%Y-%m-%d-%H.%M.%S}.{micros[line]:06d}"
            message = MESSAGES[line % len(MESSAGES)].format(numbers[line])
            file.write(
                f"{tag} {int(utc.timestamp())} {local:%Y.%m.%d} {node} {stamp} {node} RAS KERNEL {level} {message}\n"
            )


def _figures(costs: list[Cost]) -> dict[str, Any]:
    client, both = (median(getattr(cost, side) for cost in costs) for side in ("client", "processor"))
    return {
        "lines/s": round(LINES / median(cost.wall for cost in costs)),
        "lines/s of processor time, client": round(LINES / client),
        "client and server": round(LINES / both),
    }
