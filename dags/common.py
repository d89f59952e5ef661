"""What the DAG files share. Parsed often, so mllib's heavy parts are imported inside tasks only."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mllib.errors import BadInput, DatabaseUnavailable, MillraceError, NoChampion, NothingToScore, NothingToTrainOn
from mllib.types import Window

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = logging.getLogger(__name__)

HOUR = timedelta(hours=1)

NEVER = timedelta(0)
"""For a timetable's ``run_immediately``: a DAG that is unpaused for the first time waits for its next time. With False,
too, Airflow runs the last one at once when it is less than a tenth of the period ago, a weekly one until Sunday
evening: beside the run that somebody has just triggered by hand."""

BACKFILL_POOL = "millrace_backfill"
"""Where shards of re-scoring wait, and those of native backfills (see plugins/airflow_local_settings.py). The local
stack and docker-compose.yml make it."""

DEFAULTS: dict[str, Any] = {
    # No start_date: backfills may reach back to any hour that has logs. With one, NEVER would be without effect.
    "catchup": False,
    "default_args": {"owner": "millrace", "retries": 2, "retry_delay": timedelta(seconds=30)},
}


def moment_param(description: str) -> Param:
    """A time that may be left out."""
    return Param(None, type=["null", "string"], format="date-time", description=description)


def engine() -> Engine:
    """The engine of the Airflow connection ``millrace``."""
    from airflow.sdk import Connection

    from mllib.store.database import engine_for

    # mllib reports its progress through logging; in a task that belongs into the task's log.
    logging.getLogger("mllib").setLevel(logging.INFO)
    return engine_for(Connection.get("millrace").get_uri())


@contextmanager
def final_states() -> Iterator[None]:
    """Turns the project's errors into task states.

    Nothing to do yet is a skip that says so, and green. What a person must act on fails at once, without retries. A
    database that cannot be reached, and whatever nobody thought of, is retried.
    """
    try:
        yield
    except (NoChampion, NothingToScore, NothingToTrainOn) as reason:
        log.warning("Skipped: %s", reason)  # Airflow logs that a task was skipped, but not why
        raise AirflowSkipException(str(reason)) from None
    except DatabaseUnavailable:
        raise
    except MillraceError as error:
        log.error("%s", error)  # a sentence above the traceback
        raise AirflowFailException(str(error)) from None


def scoring_window(run_type: str, partition_key: str | None, params: Mapping[str, Any]) -> Window | None:
    """Which rows a scoring run is for: a window of event time, or None for the newly ingested rows.

    Scheduled runs take what is new, whatever their hour is called: after a downtime Airflow leaves hours out, and their
    rows must not be. A backfill takes the hour of its partition. A run by hand takes what it is given: ``from`` and
    ``to``, or a partition key, or nothing, which means what is new.

    Raises BadInput when these contradict each other or are incomplete.
    """
    start, end = (read_moment(params.get(name)) for name in ("from", "to"))
    if run_type == "backfill":
        if partition_key is None:
            raise BadInput("This backfill run has no partition key, so it is not known which hour it is for.")
        return _hour(partition_key)
    if run_type != "manual":
        return None
    if (start is None) != (end is None):
        raise BadInput("A window needs both ends: give `from` and `to`, or neither.")
    if start is not None and end is not None:
        if partition_key is not None:
            raise BadInput("Give either a partition key or `from` and `to`, not both.")
        if start >= end:
            raise BadInput(f"The window is empty: `from` ({start}) must be before `to` ({end}).")
        return Window(start, end)
    return None if partition_key is None else _hour(partition_key)


def day_before(context: Mapping[str, Any]) -> Window:
    """The whole day (UTC) before a run was due."""
    run = context["dag_run"]
    due: datetime = run.data_interval_end or run.run_after
    midnight = due.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(midnight - timedelta(days=1), midnight)


def window_param(params: Mapping[str, Any]) -> Window:
    """The window of the parameters ``from`` and ``to``. Raises BadInput when one is missing or it is empty."""
    window = scoring_window("manual", None, params)
    if window is None:
        raise BadInput("Say which event times to score again: give `from` and `to`, or the number of a `plan`.")
    return window


def shard_inputs(shards: Iterable[Any]) -> list[dict[str, Any]]:
    """One input of a mapped ``score_shard`` per shard, with the name that it has in the UI."""
    return [
        {
            "run_id": shard.run_id,
            "shard": shard.shard,
            "name": f"{shard.starts:%Y-%m-%d %H:%M} to {shard.ends:%Y-%m-%d %H:%M}, {shard.claimed:,} rows",
        }
        for shard in shards
    ]


def score_shard(shard: dict[str, Any]) -> dict[str, int]:
    """The task that scores one shard and commits it; to be mapped over `shard_inputs`."""
    from airflow.sdk import get_current_context

    from mllib.jobs import scoring

    get_current_context()["shard_name"] = shard["name"]
    with final_states():
        rows, anomalies = scoring.score_shard(engine(), shard["run_id"], shard["shard"])
    log.info("%s rows scored, %s anomalies.", f"{rows:,}", f"{anomalies:,}")
    return {"rows": rows, "anomalies": anomalies}


SHARD_TASK: dict[str, Any] = {
    "map_index_template": "{{ shard_name }}",
    "doc_md": "Scores one shard and commits it. A shard that is in is left as it is.",
}


def log_finished(runs: Iterable[Any]) -> None:
    """Says which runs a claim has finished on its way."""
    for run in runs:
        log.info("Finished run %s, which was left open: %s rows.", run.run_key, f"{run.scored:,}")


def log_scored(rows: int, anomalies: int) -> None:
    """Says what was published."""
    if rows:
        log.info("%s rows scored, %s anomalies.", f"{rows:,}", f"{anomalies:,}")
    else:
        log.info("There was nothing to score.")


def decided_by(context: Mapping[str, Any]) -> str:
    """Who is behind a run, for the audit: its id, and the user where somebody triggered it by hand."""
    run = context["dag_run"]
    user = run.triggering_user_name
    return f"{run.run_id} ({user})" if user else str(run.run_id)


def as_of(context: Mapping[str, Any]) -> datetime:
    """Up to when a training run may look: the parameter, else the end of the run's interval, else when it was due."""
    run = context["dag_run"]
    moment: datetime = read_moment(context["params"].get("as_of")) or run.data_interval_end or run.run_after
    return moment


def _hour(partition_key: str) -> Window:
    start = read_moment(partition_key)
    if start is None or start != start.replace(minute=0, second=0, microsecond=0):
        raise BadInput(f"The partition key {partition_key!r} is no hour; write it like 2026-01-31T14:00:00 (UTC).")
    return Window(start, start + HOUR)


def read_moment(text: str | None) -> datetime | None:
    """A time of a parameter, in UTC where it names no zone. Raises BadInput when it is none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no time; write it like 2026-01-31T14:00:00 (UTC).") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
