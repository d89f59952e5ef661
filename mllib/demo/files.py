"""Demo files of every source: what `make run` brings in when there are no logs of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mllib.demo import generate
from mllib.demo.connections import generate_connections
from mllib.demo.flows import generate_flows
from mllib.demo.runs import generate_runs

CONNECTIONS = 12_000
RUNS = 1_000


@dataclass(frozen=True, kw_only=True)
class DemoFile:
    """A file to be ingested, and the time of its first line where its format has no times."""

    path: Path
    start: datetime | None = None


def generate_all(folder: Path) -> list[DemoFile]:
    """Write synthetic, labelled rows of every source into ``folder``, all of them from before this hour."""
    return [*(DemoFile(path=path) for path in generate(folder)), *generate_others(folder)]


def generate_others(folder: Path) -> list[DemoFile]:
    """The same for every source but logs."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    connections = generate_connections(folder / "demo-synthetic-connections.csv", rows=CONNECTIONS)
    return [
        DemoFile(path=generate_flows(folder / "demo-synthetic-flows.csv.gz")),
        DemoFile(path=connections, start=now - timedelta(seconds=CONNECTIONS)),  # a second apart
        DemoFile(path=generate_runs(folder / "demo-synthetic-runs.jsonl.gz", now=now, runs=RUNS)),
    ]
