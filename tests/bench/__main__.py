"""Runs one benchmark by its name, or lists them."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.bench import (
    backfill,
    bgl,
    cicids,
    gate,
    hdfs,
    hdfs_sessions,
    ingest,
    latency,
    lines,
    log_severity,
    nsl_kdd,
    pipeline,
    replay,
    speed,
    training,
)

BENCHMARKS = {
    "ingest": ingest.run,
    "latency": latency.run,
    "gate": gate.run,
    "backfill": backfill.run,
    "bgl": bgl.run,
    "cicids": cicids.run,
    "hdfs": hdfs.run,
    "hdfs_sessions": hdfs_sessions.run,
    "lines": lines.run,
    "log_severity": log_severity.run,
    "nsl_kdd": nsl_kdd.run,
    "pipeline": pipeline.run,
    "replay": replay.run,
    "training": training.run,
}
NEED_DATA = ("bgl", "cicids", "hdfs", "hdfs_sessions", "lines", "log_severity", "nsl_kdd", "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument(
        "name", nargs="?", default="speed", choices=sorted(["speed", *BENCHMARKS]), help="default: speed"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help=f"folder of the data set (lines: of all sets; pipeline: its file), for {', '.join(NEED_DATA)};"
        " replay takes BGL out of it, not generated logs",
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", help="speed: sizes; 10000000 takes 15 GB of disk", default=speed.SIZES
    )
    parser.add_argument("--pairs", type=int, default=speed.PAIRS, help="speed: turns of each size")
    parser.add_argument("--picture", type=Path, help="speed: write rows/s and memory over size to this SVG file")
    parser.add_argument("--record", action="store_true", help="speed: what is measured is the measure from now on")
    chosen = parser.parse_args()
    if chosen.name in NEED_DATA and chosen.data is None:
        parser.error(f"{chosen.name} needs --data PATH: the data is not part of the project")
    memory = psutil.virtual_memory().total / 2**30
    print(f"Machine   {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("polars", "numpy", "scikit-learn", "psycopg"))
    print(f"Versions  Python {platform.python_version()}, {libraries}", flush=True)
    if chosen.name == "speed":
        held = speed.run(sizes=chosen.rows, pairs=chosen.pairs, picture=chosen.picture, record=chosen.record)
        sys.exit(0 if held else 1)
    BENCHMARKS[chosen.name](chosen.data)


if __name__ == "__main__":
    main()
