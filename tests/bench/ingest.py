"""How fast lines come in: parsed, copied and committed, by a whole process, with the processor time of both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import text

from mllib import demo
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
        for name, path, options in (
            ("BGL-like", folder / "bgl.log", ["--format", "bgl"]),
            ("BGL-like, with labels", folder / "bgl.log", ["--format", "bgl", "--labels"]),
            ("JSON lines, with labels", folder / "json", ["--labels"]),
        ):
            costs, peaks = [], []
            for _ in range(RUNS):
                with transaction(engine) as conn:
                    conn.execute(text(FORGET))
                cost, said = meter.cost(lambda path=path, options=options: millrace(dsn, "ingest", str(path), *options))
                assert said["rows"] == LINES, said
                costs.append(cost)
                peaks.append(said["peak_mib"])
            figures.append(_figures(name, costs, peaks))
        engine.dispose()
    table(f"{LINES:,} lines, medians of {RUNS}", figures)


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


def _figures(name: str, costs: list[Cost], peaks: list[int]) -> dict[str, Any]:
    client, server = (median(getattr(cost, side) for cost in costs) for side in ("client", "server"))
    return {
        "what": name,
        "lines/s": round(LINES / median(cost.wall for cost in costs)),
        "lines/s of processor time, client": round(LINES / client),
        "client and server": round(LINES / (client + server)),
        "peak, MiB": max(peaks),
    }
