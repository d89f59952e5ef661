"""Scoring against the raw limit of the database and against a typical pipeline, in turns, on generated logs.

The limit is COPY of the same rows out and of their predictions in, in binary, one after the other, by psql. Ours is
measured in a warm process and as a whole process: imports, connecting, claim, context, ledger and hourly counts are in
both, start-up in the second. Processor time, client and server together, says more than seconds on a busy machine; the
ratios of it are those that are held against the recorded ones.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mllib import demo
from mllib.detectors import detector
from mllib.detectors._ensemble import MEMBERS, Ensemble
from mllib.features.stream import with_context
from mllib.jobs import scoring
from mllib.jobs.models import load_model
from mllib.local.postgres import binary
from mllib.store import predictions, rows
from mllib.store.database import connection, driver, engine_for, transaction
from mllib.store.detectors import source_of
from mllib.types import Window
from tests.bench.common import database, millrace, program, table
from tests.bench.costs import Cost, Meter
from tests.bench.speed_picture import Size, draw

DETECTOR = "log_anomaly"
SIZES = (100_000, 1_000_000)
PAIRS = 5
TYPICAL_AT_MOST = 1_000_000
"""Rows beyond which the typical pipeline is left out: it takes 3 GB of memory for a million of them."""

TOLERATED = 0.8
"""A ratio below this share of the recorded one is a finding."""

RECORDED = Path(__file__).with_name("speed.json")
ROWS_OUT = "select log_id, ts, level, service, message, response_time_ms, status_code from millrace.logs"
_COLUMNS = "ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, explanation, is_anomaly"
PREDICTIONS_OUT = f"copy (select {_COLUMNS} from millrace.predictions) to stdout (format binary)"  # noqa: S608
PREDICTIONS_IN = f"copy millrace.predictions ({_COLUMNS}) from stdin (format binary)"
FORGET = (
    "truncate millrace.predictions, millrace.predictions_history, millrace.prediction_hours,"
    " millrace.scoring_shards, millrace.scoring_runs cascade"
)


@dataclass(kw_only=True, slots=True)
class Runs:
    """The costs of one way to score, pair by pair, and its peak memory in MiB."""

    costs: list[Cost] = field(default_factory=list)
    peak_mib: int | None = None

    def took(self, cost: Cost, peak_mib: int | None = None) -> None:
        self.costs.append(cost)
        if peak_mib is not None:
            self.peak_mib = max(self.peak_mib or 0, peak_mib)


def run(*, sizes: Sequence[int] = SIZES, pairs: int = PAIRS, picture: Path | None = None, record: bool = False) -> bool:
    """Whether no ratio has fallen; of each size medians over the pairs. With ``record``, these are the new measure."""
    found = {size: _measure(size, pairs) for size in sizes}
    if picture is not None:
        drawn = [
            Size(
                rows=size,
                rows_per_second={
                    name: size / median(cost.wall for cost in one.costs) for name, one in ways.items() if one.costs
                },
                peak_mib={name: one.peak_mib for name, one in ways.items() if one.peak_mib},
            )
            for size, ways in found.items()
        ]
        picture.write_text(draw(drawn), encoding="utf-8")
    ratios = {str(size): _ratios(ways, lambda cost: cost.processor) for size, ways in found.items()}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if record:
        RECORDED.write_text(json.dumps({**recorded, **ratios}, indent=2) + "\n")
        return True
    fallen = [
        f"{size} rows, {name}: {ratio:.2f} where {recorded[size][name]:.2f} is recorded"
        for size, by_name in ratios.items()
        for name, ratio in by_name.items()
        if ratio < TOLERATED * recorded.get(size, {}).get(name, 0)
    ]
    print(
        "\n"
        + "\n".join(["Ratios of processor time that have fallen:", *fallen] if fallen else ["No ratio has fallen."])
    )
    return not fallen


def _measure(size: int, pairs: int) -> dict[str, Runs]:
    with database() as (folder, dsn):
        demo.generate(folder / "input", rows=size)
        millrace(dsn, "ingest", str(folder / "input"), "--labels")
        millrace(dsn, "train", DETECTOR)
        typical = str(folder / "typical.joblib")
        program(dsn, "tests.bench.typical", "fit", typical)
        engine = engine_for(dsn)
        scoring.score(engine, DETECTOR)  # warm
        stored = folder / "predictions"
        _psql(dsn, PREDICTIONS_OUT, output=stored)
        for statement in ("vacuum analyze", "alter system set autovacuum = off", "select pg_reload_conf()"):
            _psql(dsn, statement)
        _assert_no_sort(dsn)
        meter = Meter(folder)
        ways = {name: Runs() for name in ("limit", "in process", "whole process", "scored again", "typical")}
        again = ["--from", "2000-01-01", "--to", f"{datetime.now(UTC):%Y-%m-%dT%H:%M}"]
        for _ in range(pairs):
            _begin_anew(dsn)
            out, _none = meter.cost(lambda: _psql(dsn, f"copy ({ROWS_OUT}) to stdout (format binary)"))
            back, _none = meter.cost(lambda: _psql(dsn, PREDICTIONS_IN, given=stored))
            ways["limit"].took(out + back)
            _begin_anew(dsn)
            ways["in process"].took(meter.cost(lambda: scoring.score(engine, DETECTOR))[0])
            _begin_anew(dsn)
            for name, window in (("whole process", []), ("scored again", again)):
                cost, said = meter.cost(lambda window=window: millrace(dsn, "score", DETECTOR, *window))
                ways[name].took(cost, said["peak_mib"])
            if size <= TYPICAL_AT_MOST:
                cost, said = meter.cost(lambda: program(dsn, "tests.bench.typical", "score", typical))
                ways["typical"].took(cost, said["peak_mib"])
        _print(size, ways)
        if size <= TYPICAL_AT_MOST:
            algorithm = load_model(engine, DETECTOR, 1).algorithm
            table(f"{size:,} rows, {algorithm}: processor time of each stage of ours", _stages(engine, meter, size))
        engine.dispose()
    return ways


def _ratios(ways: dict[str, Runs], of: Callable[[Cost], float]) -> dict[str, float]:
    """How many times as fast: the median over the pairs."""
    asked = {
        "in process, of the limit": ("limit", "in process"),
        "whole process, of the limit": ("limit", "whole process"),
        "scored again, of the limit": ("limit", "scored again"),
        "whole process, times the typical": ("typical", "whole process"),
    }
    pairs = {name: zip(ways[slow].costs, ways[fast].costs, strict=False) for name, (slow, fast) in asked.items()}
    ratios = {name: [of(slow) / of(fast) for slow, fast in both] for name, both in pairs.items()}
    return {name: round(median(values), 3) for name, values in ratios.items() if values}


def _psql(dsn: str, statement: str, *, given: Path | None = None, output: Path | None = None) -> None:
    with (given or Path(os.devnull)).open("rb") as source, (output or Path(os.devnull)).open("wb") as target:
        command = [binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", statement]
        subprocess.run(command, stdin=source, stdout=target, check=True)


def _begin_anew(dsn: str) -> None:
    """Nothing is scored, and the server has nothing left to do: which turn its own work met would be chance."""
    _psql(dsn, FORGET)
    _psql(dsn, "checkpoint")


def _print(size: int, ways: dict[str, Runs]) -> None:
    table(
        f"{size:,} rows: medians of {len(ways['limit'].costs)}",
        [
            {
                "what": name,
                "rows/s": round(size / median(cost.wall for cost in one.costs)),
                "seconds": median(cost.wall for cost in one.costs),
                "processor, client": median(cost.client for cost in one.costs),
                "processor, server": median(cost.server for cost in one.costs),
                "peak, MiB": one.peak_mib,
            }
            for name, one in ways.items()
            if one.costs
        ],
    )
    by_time, by_processor = _ratios(ways, lambda cost: cost.wall), _ratios(ways, lambda cost: cost.processor)
    table(
        f"{size:,} rows: how many times as fast",
        [{"ratio": name, "by seconds": by_time[name], "by processor time": by_processor[name]} for name in by_time],
    )


def _stages(engine: Any, meter: Meter, size: int) -> list[dict[str, Any]]:
    source, context = source_of(DETECTOR), detector(DETECTOR).context
    model = load_model(engine, DETECTOR, 1)
    with connection(engine) as reader, connection(engine) as writer:
        driver(writer).execute("truncate millrace.predictions")
        selection, window = _everything(reader)
        read, frames = meter.cost(lambda: list(rows.stream(reader, source, selection, [window], context=context)))
        chunks = list(with_context(frames, context))
        making = meter.cost(lambda: _each(model.features, chunks))[0]
        features = [model.features(chunk) for chunk in chunks]
        judging = meter.cost(lambda: _each(model.score, features))[0]
        # Once more with the features known: what is left is calibration and explanations.
        whole = meter.cost(lambda: _each(model.judged, chunks, features))[0]
        scored = [model.judged(*pair) for pair in zip(chunks, features, strict=True)]
        write, _ = meter.cost(lambda: predictions.write(writer, scored, detector_id=1, run_id=1, model_version=1))
        writer.rollback()
    members = {f"of which {name}": meter.cost(lambda ask=ask: _each(ask, features))[0]
               for name, ask in _members(model).items()}  # fmt: skip
    costs = {
        "read": read,
        "features": making,
        "judging": judging,
        **members,
        "calibration and explanations": whole - judging,
        "write": write,
    }
    return [
        {
            "stage": name,
            "client, microseconds a row": 1e6 * cost.client / size,
            "server, microseconds a row": 1e6 * cost.server / size,
        }
        for name, cost in costs.items()
    ]


def _each(work: Callable[..., Any], *arguments: Sequence[Any]) -> None:
    """Does it for each, and keeps nothing, as scoring does: memory that was never used before costs as much again."""
    for given in zip(*arguments, strict=True):
        work(*given)


def _members(model: Any) -> dict[str, Callable[[Any], Any]]:
    """What asks each member of the model's judge, none for a forest alone."""
    judge = model._forest.judge
    ensemble = getattr(judge, "ensemble", judge)
    if not isinstance(ensemble, Ensemble):
        return {}
    asked = {
        name: partial(ensemble.member, name)
        for name, weight in zip(MEMBERS, ensemble.weights.values, strict=True)
        if weight
    }
    return asked if judge is ensemble else {**asked, "companion": judge.votes}


def _everything(conn: Any) -> tuple[rows.Selection, Window]:
    first = rows.first_event(conn, source_of(DETECTOR))
    assert first is not None
    window = Window(first, first + timedelta(days=4000))
    return rows.RowsInWindow(window=window, current=rows.current_snapshot(conn)), window


def _assert_no_sort(dsn: str) -> None:
    """The reading query walks the key."""
    with transaction(engine_for(dsn)) as conn:
        selection, window = _everything(conn)
        plan = rows.plan(conn, source_of(DETECTOR), selection, window, context=detector(DETECTOR).context)
    assert "Sort  (cost" not in plan, plan
