"""The doctor: holds every promise against the data, and says of each broken one which command mends it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from mllib import artifacts
from mllib.detectors import detector as detector_named
from mllib.errors import BadArtifact, SchemaOutOfDate, UnknownDetector
from mllib.jobs.findings import Finding, error, islands, psql, score_again, warning
from mllib.sources import TABLES
from mllib.store import doctor, freshness, identity, partitions
from mllib.store.migrate import require_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long things may take before the doctor speaks of them."""

    stuck: timedelta = timedelta(minutes=1)
    """An open run that nobody is working on."""
    waiting: timedelta = timedelta(hours=2)
    """A row that no run has claimed; scoring runs every hour."""
    held: timedelta = timedelta(hours=1)
    """A writing transaction: its rows cannot be claimed before it ends, nor can the shard that it has in hand."""
    maintenance: timedelta = timedelta(hours=36)
    """Rows in a default partition, and a database without partitions ahead; maintenance runs every day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that was found; empty when all promises hold."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}


DEFAULT = Patience()


def examine(engine: Engine, *, patience: Patience = DEFAULT) -> Report:
    """Checks every promise. Changes nothing, and may run at any time beside anything; it reads every row once or twice.

    A database whose schema is not this version's is not looked into any further.
    """
    try:
        require_schema(engine)
    except SchemaOutOfDate as problem:
        return Report(findings=(error("schema", str(problem), "millrace migrate"),))
    findings: list[Finding] = []
    for check in _CHECKS:
        with doctor.snapshot(engine) as conn:
            findings += check(conn, patience)
    findings += _rows(engine)
    return Report(findings=tuple(findings))


def _identity(conn: Connection, _: Patience) -> Iterator[Finding]:
    found = identity.identity(conn)
    if not found.at_home:
        yield error(
            "identity",
            "The database was restored from another cluster"
            + (", whose transaction ids are ahead of those here" if found.behind else "")
            + "; nothing is scored until it is adopted.",
            "millrace adopt",
        )


def _partitions(conn: Connection, patience: Patience) -> Iterator[Finding]:
    age = doctor.age(conn)
    today = datetime.now(UTC).date()
    lacking = [
        parent
        for parent in partitions.PARTITIONED
        if not {today, today + timedelta(days=1)} <= partitions.existing(conn, parent)
    ]
    if lacking and age > patience.maintenance:
        message = f"There are no partitions for today and tomorrow in {', '.join(lacking)}."
        yield warning("partitions_ahead", message, "millrace maintain", len(lacking))
    strays = [
        *(row for table in TABLES for row in doctor.ask(conn, "doctor.strays", table, patience=patience.maintenance)),
        *doctor.ask(conn, "doctor.stray_predictions", patience=patience.maintenance),
    ]
    for row in strays:
        if row["rows"]:
            message = f"{row['rows']:,} rows of {row['parent']} lie in its default partition, out of their day's."
            yield warning("strays", message, "millrace maintain", row["rows"])
    keys_of = {"predictions": "detector_id, ts, log_id", **{table.name: f"ts, {table.row_id}" for table in TABLES}}
    doubles = [
        *(row for table in TABLES for row in doctor.ask(conn, "doctor.doubles", table)),
        *doctor.ask(conn, "doctor.double_predictions"),
    ]
    for row in doubles:
        if row["rows"]:
            keys = keys_of[row["parent"]]
            statement = (
                f"delete from millrace.{row['parent']}_default where ({keys}) in (select {keys} from"  # noqa: S608  shown
                f" millrace.{row['parent']} where tableoid <> 'millrace.{row['parent']}_default'::regclass)"
            )
            message = (
                f"{row['rows']:,} rows of {row['parent']} are there twice, in a day's and in the default partition."
            )
            yield error("doubles", message, psql(statement), row["rows"])
    for row in doctor.ask(conn, "doctor.detached"):
        parent, child, day = f"millrace.{row['parent']}", f"millrace.{row['child']}", row["day"]
        bounds = (f"{day}T00:00Z", f"{day + timedelta(days=1)}T00:00Z")
        statement = (
            f"with s as (delete from {parent}_default where ts >= '{bounds[0]}' and ts < '{bounds[1]}' returning *)"  # noqa: S608  shown
            f" insert into {child} select * from s;"
            f" alter table {parent} attach partition {child} for values from ('{bounds[0]}') to ('{bounds[1]}')"
        )
        yield error("detached", f"{child} is no part of {parent}, so nobody sees its rows.", psql(statement))


def _champions(conn: Connection, _: Patience) -> Iterator[Finding]:
    for row in doctor.ask(conn, "doctor.champions"):
        name, champions, decided = row["detector"], row["champions"] or [], row["decided"]
        if len(champions) > 1:
            keep = decided if decided in champions else champions[-1]
            statement = (
                "update millrace.model_registry set status = 'archived'"  # noqa: S608  shown, not run
                f" where status = 'champion' and version <> {keep}"
                f" and detector_id = (select detector_id from millrace.detectors where name = '{name}');"
                " create unique index if not exists model_registry_one_champion on millrace.model_registry"
                " (detector_id) where status = 'champion'"
            )
            message = f"{name} has {len(champions)} champions: versions {', '.join(map(str, champions))}."
            yield error("champions", message, psql(statement), len(champions))
        elif not champions:
            version = decided or row["newest"]
            yield warning(
                "champions",
                f"{name} has model versions and no champion, so that nothing is scored.",
                f"millrace promote {name} {version} --against current --reason 'no champion'",
            )
        elif decided is not None and champions[0] != decided:
            yield error(
                "champions",
                f"The champion of {name} is version {champions[0]}, but the last decision was for version {decided}.",
                f"millrace promote {name} {decided} --against current --reason 'as decided'",
            )


def _models(conn: Connection, _: Patience) -> Iterator[Finding]:
    for row in doctor.ask(conn, "doctor.models_in_use"):
        try:
            if row["content"] is None:
                raise BadArtifact("This model cannot be loaded: its bytes are gone.")
            detector_named(row["detector"]).load(artifacts.loads(bytes(row["content"]), row["digest"]))
        except UnknownDetector:
            continue
        except (BadArtifact, ValueError, KeyError, TypeError) as problem:
            command = f"millrace rollback {row['detector']} --reason 'the artifact is damaged'"
            if row["status"] != "champion":
                command = f"millrace train {row['detector']}"
            yield error("artifacts", f"{row['detector']} version {row['version']}: {problem}", command)


def _open_runs(conn: Connection, patience: Patience) -> Iterator[Finding]:
    for row in doctor.ask(conn, "doctor.open_runs"):
        idle = len(doctor.ask(conn, "doctor.idle_shards", run_id=row["run_id"]))
        if idle < row["unfinished"] or row["idle"] < patience.stuck:
            continue
        yield error(
            "open_runs",
            f"Run {row['run_id']} of {row['detector']} is not finished: {row['unfinished']} of {row['shards']} shards "
            f"are left, and nobody has worked on it for {freshness.age(row['idle'])}.",
            f"millrace score {row['detector']}",
            row["unfinished"],
        )
    for row in doctor.ask(conn, "doctor.held_shards", patience=patience.held):
        yield error(
            "held_shards",
            f"Process {row['pid']} ({row['name']}) has had shard {row['shard']} of run {row['run_id']} of "
            f"{row['detector']} in hand for {freshness.age(row['age'])}; if it is frozen, {row['detector']} scores "
            "nothing else until it ends.",
            psql(f"select pg_terminate_backend({row['pid']})"),
        )


def _behind(conn: Connection, patience: Patience) -> Iterator[Finding]:
    state = freshness.freshness(conn)
    for row in state:
        if row.rows_waiting and row.oldest_age is not None and row.oldest_age > patience.waiting:
            yield error(
                "freshness",
                f"{row.rows_waiting:,} rows wait to be scored by {row.detector}, the oldest for "
                f"{freshness.age(row.oldest_age)}.",
                f"millrace score {row.detector}",
                row.rows_waiting,
            )
    for holder in freshness.holders(conn):
        if holder.age is not None and holder.age < patience.held:
            continue
        end = f"rollback prepared '{holder.gid}'" if holder.gid else f"select pg_terminate_backend({holder.pid})"
        open_for = "for a time not known to this role" if holder.age is None else f"for {freshness.age(holder.age)}"
        yield warning(
            "horizon",
            f"A writing transaction of {holder.name} has been open {open_for}: its rows cannot be claimed, and claims "
            "get slower, until it ends.",
            psql(end),
        )


def _ledger(conn: Connection, _: Patience) -> Iterator[Finding]:
    for row in doctor.ask(conn, "doctor.wrong_runs"):
        message = (
            f"Run {row['run_id']} of {row['detector']} has {row['scored'] or 0:,} rows scored in the ledger, and "
            f"{row['found']:,} predictions."
        )
        if row["unfinished"]:
            message = f"{message[:-1]}; {row['unfinished']} of its shards are not in."
        command = score_again(row["detector"], row["first_ts"], row["last_ts"])
        yield error("runs", message, command, int(max(abs((row["scored"] or 0) - row["found"]), row["unfinished"])))


def _labels(conn: Connection, _: Patience) -> Iterator[Finding]:
    gone = sum(doctor.labels_without_row(conn, table) for table in TABLES)
    if gone:
        yield warning(
            "labels", f"{gone:,} labels are on rows that somebody has deleted.", "millrace maintain --tidy", gone
        )


_CHECKS: tuple[Callable[[Connection, Patience], Iterator[Finding]], ...] = (
    _identity,
    _partitions,
    _champions,
    _models,
    _open_runs,
    _behind,
    _ledger,
    _labels,
)


def _rows(engine: Engine) -> Iterator[Finding]:
    """What must be asked of every row, a day at a time."""
    missed: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    wrong_hours: dict[str, int] = defaultdict(int)
    without_row: dict[str, int] = defaultdict(int)
    without_run: dict[str, list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for start, end in doctor.spans(engine):
        with doctor.snapshot(engine) as conn:
            horizons = doctor.horizons(conn)
            predictions_from = horizons.get(partitions.PREDICTIONS, doctor.FIRST)
            span: dict[str, Any] = {"start": start, "end": end}
            if start >= predictions_from:
                for row in doctor.ask(conn, "doctor.wrong_hours", **span):
                    wrong_hours[row["detector"]] += row["hours"]
            for source in doctor.sources_in_use(conn):
                if start >= predictions_from:
                    for row in doctor.ask(conn, "doctor.missed", source, **span):
                        missed[row["detector"]].append((row["hour"], row["rows"]))
                for row in doctor.ask(conn, "doctor.loose_predictions", source, **span):
                    if start >= horizons.get(source.table.name, doctor.FIRST):
                        without_row[row["detector"]] += row["without_row"]
                    if row["without_run"]:
                        found = (row["first_without_run"], row["last_without_run"], row["without_run"])
                        without_run[row["detector"]].append(found)
    for name, hours in missed.items():
        for first, last, rows in islands(hours):
            message = (
                f"{rows:,} rows between {first:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M} count as scored by {name} and "
                "have no prediction."
            )
            yield error("missed", message, score_again(name, first, last), rows)
    for name, spans in without_run.items():
        for first, last, rows in spans:
            message = f"{rows:,} predictions of {name} on {first:%Y-%m-%d} belong to no run of the ledger."
            yield error("predictions_without_run", message, score_again(name, first, last), rows)
    for name, rows in without_row.items():
        if rows:
            message = f"{rows:,} predictions of {name} are of rows that somebody has deleted."
            yield error("predictions_without_row", message, "millrace maintain --tidy", rows)
    for name, count in wrong_hours.items():
        message = f"The totals of {count:,} hours of {name} disagree with its predictions."
        yield error("hours", message, "millrace maintain --tidy", count)
