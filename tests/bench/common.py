"""What the benchmarks share: a database of their own, and the command line as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mllib.local.postgres import EmbeddedPostgres


@contextmanager
def database() -> Iterator[tuple[Path, str]]:
    """A folder and an empty, migrated database, durable as in production; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder)) as postgres:
            millrace(postgres.dsn(), "migrate")
            yield Path(folder), postgres.dsn()


class CommandFailedError(Exception):
    """The command failed; the message is what it said."""


def millrace(dsn: str, *arguments: str) -> dict[str, Any]:
    """What ``millrace ... --json`` reports, with its peak memory in MiB as ``peak_mib``. Raises CommandFailedError."""
    return program(dsn, "mllib", *arguments, "--json")


def program(dsn: str, module: str, *arguments: str) -> dict[str, Any]:
    """What a Python program prints as JSON on its last line, with its peak memory. Raises CommandFailedError."""
    command = [sys.executable, "-m", module, *arguments]
    # Into files: a pipe that nobody empties while the process is watched stops it once it is full.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, env={**os.environ, "MILLRACE_DSN": dsn}, stdout=output, stderr=errors) as process,
    ):
        watched = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
                process.wait(0.02)
            except (psutil.NoSuchProcess, subprocess.TimeoutExpired):
                continue
        output.seek(0)
        errors.seek(0)
        printed, said = output.read(), errors.read()
    if process.returncode:
        raise CommandFailedError(said.strip().splitlines()[-1])
    report: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {**report, "peak_mib": round(peak / 2**20)}


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows as a Markdown table."""
    print(f"\n{title}\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row[column]) for column in columns) + " |")
    sys.stdout.flush()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
