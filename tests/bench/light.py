"""The small detector: how long it takes to fit and to score one line, and how large its artifact is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from mllib import artifacts
from mllib.detectors import detector
from tests.bench.common import table
from tests.factories import make_logs


def run(_: Path | None) -> None:
    """In one warm process, on generated lines."""
    kind, logs = detector("log_light"), make_logs(1_000)
    model = kind.fit([logs], rows=logs.height)
    flagged = model.predict(logs)["is_anomaly"].to_numpy()
    normal, anomaly = (logs[int(place) : int(place) + 1] for place in (flagged.argmin(), flagged.argmax()))
    many, few = make_logs(500_000), model.with_threshold(model.expected_threshold(0.02))
    print(f"\nArtifact: {len(artifacts.dumps(model.state())):,} bytes")
    table(
        "log_light, in process, milliseconds",
        [
            _times("fit of 1,000 rows", lambda: kind.fit([logs], rows=logs.height), 15),
            _times("one normal line", lambda: model.predict(normal), 1_000),
            _times("one anomaly, with its explanation", lambda: model.predict(anomaly), 1_000),
            _times("100 lines, 10 anomalies among them", lambda: model.predict(logs[:100]), 300),
            _times("500,000 lines, 2 % anomalies", lambda: few.predict(many), 3),
        ],
    )


def _times(name: str, work: Callable[[], object], times: int) -> dict[str, object]:
    work()
    taken = []
    cpu = time.process_time()
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - start))
    cpu = 1e3 * (time.process_time() - cpu) / times
    return {"what": name, "median": median(taken), "best": min(taken), "processor time": cpu}
