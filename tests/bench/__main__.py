"""Runs one benchmark by its name, or lists them."""

from __future__ import annotations

import argparse
import platform
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
    light,
    lines,
    log_severity,
    nsl_kdd,
    pipeline,
    replay,
    speed,
)

BENCHMARKS = {
    "speed": speed.run,
    "light": light.run,
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
}
NEED_DATA = ("bgl", "cicids", "hdfs", "hdfs_sessions", "lines", "log_severity", "nsl_kdd", "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument("name", nargs="?", default="speed", choices=sorted(BENCHMARKS), help="default: speed")
    parser.add_argument(
        "--data",
        type=Path,
        help=f"folder of the data set (lines: of all sets; pipeline: its file), for {', '.join(NEED_DATA)};"
        " replay takes BGL out of it, not generated logs",
    )
    chosen = parser.parse_args()
    if chosen.name in NEED_DATA and chosen.data is None:
        parser.error(f"{chosen.name} needs --data PATH: the data is not part of the project")
    memory = psutil.virtual_memory().total / 2**30
    print(f"Machine   {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("polars", "numpy", "scikit-learn", "psycopg"))
    print(f"Versions  Python {platform.python_version()}, {libraries}", flush=True)
    BENCHMARKS[chosen.name](chosen.data)


if __name__ == "__main__":
    main()
