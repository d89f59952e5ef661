"""One log line, or a hundred, in one warm process: log_light, and log_anomaly with and without its companion.

The lines are generated ones with their five minutes before them, as a server would hold them. Different lines are
asked one after the other, so that a median is that of ordinary traffic and not of one line that is known by heart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from mllib import artifacts, demo, sources
from mllib.detectors import detector
from mllib.detectors.base import Model
from mllib.ingest.frames import read_files
from tests.bench.common import table
from tests.factories import in_chunks, make_logs

ROWS, DAYS = 140_000, 4  # about 120 lines in five minutes
NOW = datetime(2026, 11, 1, tzinfo=UTC)
FITTED = 100_000
RATE = 0.02  # of anomalies
LINES = 120  # that are asked in turns
WARM = 20  # of them before the clock runs
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def run(_: Path | None) -> None:
    """Prints a table for each model; and how fast this machine is at present."""
    print(f"\nA turn of an empty loop takes {_empty_loop():.0f} ns: about 15 on a machine at rest")
    light, logs = detector("log_light"), make_logs(1_000)
    fitted = light.fit([logs], rows=logs.height)
    print(f"Artifact of log_light: {len(artifacts.dumps(fitted.state())):,} bytes")
    many, few = make_logs(500_000), fitted.with_threshold(fitted.expected_threshold(RATE))
    table(
        "log_light, as a batch, milliseconds",
        [
            _times("fit of 1,000 rows", lambda _: light.fit([logs], rows=logs.height), [logs], 15),
            _times("500,000 lines, 2 % anomalies", few.predict, [many], 3),
        ],
    )
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        files = demo.generate(Path(folder), rows=ROWS, days=DAYS, now=NOW)
        lines = read_files(files, sources.source("logs"))[0].rechunk()
    for name, columns in (("log_light", []), ("log_anomaly", ["label"])):
        kind, training = detector(name), lines[:FITTED].select(*sources.source("logs").schema, *columns)
        variants = kind.fit(in_chunks(training, 50_000), rows=FITTED).variants()
        for model in dict.fromkeys((variants[0], variants[-1])):  # the default, and the companion
            _measure(name, model, lines.select(*sources.source("logs").schema), kind.context)


def _measure(name: str, model: Model, lines: pl.DataFrame, context: timedelta) -> None:
    fresh = np.arange(FITTED + 10_000, lines.height - 100)
    raw = model.raw_scores(lines)[fresh]
    model = model.with_threshold(float(np.quantile(raw, 1 - RATE)))  # whatever happens in these hours, some are flagged
    flagged = raw >= model.threshold
    normal, anomalies = (
        [_with_context(lines, place, 1, context) for place in np.random.default_rng(1).permutation(places)[:LINES]]
        for places in (fresh[~flagged], fresh[flagged])
    )
    hundreds = [_with_context(lines, place, 100, context) for place in fresh[:: len(fresh) // LINES]]
    features = [(frame, model.features(frame)) for frame in normal]
    table(
        f"{name}, {model.algorithm}: one process, milliseconds",
        [
            _times("one normal line", model.predict, normal, 1_000),
            _times("- its features", model.features, normal, 1_000),
            _times("- its score", lambda pair: model.score(pair[1]), features, 1_000),
            _times("one line in words never met before", model.predict, _reworded(normal), LINES - WARM),
            _times("one anomaly, with its explanation", model.predict, anomalies, 500),
            _times("100 lines", model.predict, hundreds, 200),
        ],
    )


def _with_context(lines: pl.DataFrame, place: int, size: int, context: timedelta) -> pl.DataFrame:
    begin = lines["ts"].search_sorted(lines["ts"][int(place)] - context, side="right")
    frame = lines[min(begin, int(place)) : int(place) + size]
    return frame.with_columns(claimed=pl.int_range(frame.height) >= frame.height - size)


def _reworded(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    rng = np.random.default_rng()  # other words for each model: what is kept of a template outlives it
    words = ["".join(word) for word in rng.choice(LETTERS, (2 * len(frames), 6)).tolist()]
    return [
        frame.with_columns(message=pl.when("claimed").then(pl.lit(f"{one} met {other}")).otherwise("message"))
        for frame, one, other in zip(frames, words[::2], words[1::2], strict=True)
    ]


def _times(name: str, work: Callable[[Any], object], given: Sequence[Any], times: int) -> dict[str, object]:
    for one in given[:WARM]:
        work(one)
    taken = []
    cpu = time.process_time()
    for one, _ in zip(cycle(given[WARM:] or given), range(times), strict=False):
        start = time.perf_counter()
        work(one)
        taken.append(1e3 * (time.perf_counter() - start))
    cpu = 1e3 * (time.process_time() - cpu) / times
    return {"what": name, "median": median(taken), "best": min(taken), "processor time": cpu}


def _empty_loop() -> float:
    """Nanoseconds a turn: the figures of a machine that is busy, or slowed down, are to be read with it."""
    turns, best = 100_000, float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _turn in range(turns):
            pass
        best = min(best, time.perf_counter() - start)
    return 1e9 * best / turns
