"""The weekly job of log_anomaly on a million labelled lines, and the fit alone of 50,000, on generated logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mllib import demo, sources
from mllib.detectors import detector
from mllib.ingest.frames import read_files
from tests.bench.common import database, millrace, table
from tests.bench.costs import Meter
from tests.factories import in_chunks

DETECTOR = "log_anomaly"
ROWS, FITTED = 1_000_000, 50_000


def run(_: Path | None) -> None:
    """Prints what two trainings in a row cost: without a champion, and judged against the one of the first."""
    with database() as (folder, dsn):
        files = demo.generate(folder / "input", rows=ROWS)
        millrace(dsn, "ingest", str(folder / "input"), "--labels")
        meter = Meter(folder)
        weeks = [_week(meter, dsn, against) for against in ("nobody, the first champion", "the champion")]
        table(f"`train {DETECTOR}`, {ROWS:,} labelled lines, whole process", weeks)
        lines = read_files(files[:1], sources.source("logs"))[0][:FITTED]
        columns = [*sources.source("logs").schema]
        fits = [
            _fit(meter, name, lines.select(chosen))
            for name, chosen in (("with labels", [*columns, "label"]), ("without", columns))
        ]
        table(f"fit of {len(lines):,} lines, in process", fits)


def _week(meter: Meter, dsn: str, against: str) -> dict[str, Any]:
    cost, said = meter.cost(lambda: millrace(dsn, "train", DETECTOR))
    return {
        "judged against": against,
        "verdict": said["verdict"],
        "holdout rows": said["holdout_rows"],
        "seconds": cost.wall,
        "processor, client": cost.client,
        "processor, server": cost.server,
        "peak, MiB": said["peak_mib"],
    }


def _fit(meter: Meter, name: str, lines: Any) -> dict[str, Any]:
    cost, model = meter.cost(lambda: detector(DETECTOR).fit(in_chunks(lines, FITTED), rows=len(lines)))
    return {"lines": name, "variants": len(model.variants()), "seconds": cost.wall, "processor": cost.client}
