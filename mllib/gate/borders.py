"""Finds the rows of a slice that belong together with rows from before it, so that they can be left out of it.

A model that has seen the first half of an incident has an easy time with the second. So a row of a later slice is tied
to what came before when its incident or its burst of equal lines was under way at the slice's start. (Traces are told
by their id, which the database compares.) Pure: frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from mllib.features.text import mask
from mllib.types import Window

TRACE_LOOK_BACK = timedelta(hours=24)
"""A trace is looked for this long before a slice. What pauses for longer is the id of a host or a user, not a trace."""

INCIDENT_GAP = timedelta(minutes=5)
"""Anomalies of one service that follow each other within this are one incident."""

BURST_GAP = timedelta(minutes=1)
"""Lines of one service and one template that follow each other within this are one burst."""

_BURST_LIMIT = timedelta(hours=1)
_SHARE = 20

TRACE, INCIDENT, BURST = "trace", "incident", "burst"
KINDS = (TRACE, INCIDENT, BURST)
"""What may tie a row to those before its slice. A row that is tied in several ways counts as the first of them."""

_MICROSECOND = timedelta(microseconds=1)


def incident_limit(window: Window) -> timedelta:
    """An incident that lasts longer than a twentieth of the slice is the state of things, and no incident."""
    return window.length / _SHARE


def burst_limit(window: Window) -> timedelta:
    """Lines that do not pause for an hour, or a twentieth of the slice, are a heartbeat and no burst."""
    return min(_BURST_LIMIT, window.length / _SHARE)


def edge(window: Window) -> Window:
    """Where the rows lie that tell which incidents and bursts were under way at the start of a slice."""
    return Window(window.start - max(INCIDENT_GAP, BURST_GAP), min(window.end, burst_end(window)))


def burst_end(window: Window) -> datetime:
    """Up to here a burst is followed: a gap beyond the limit, to see whether it has paused by then."""
    return window.start + burst_limit(window) + BURST_GAP + _MICROSECOND


def templates(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` (with ``message``) as ``log_id``, ``ts``, ``service``, ``template``. Each row's depends on it alone."""
    return rows.select("log_id", "ts", "service", template=mask(rows["message"]))


def under_way(
    rows: pl.DataFrame, start: datetime, *, by: Sequence[str], gap: timedelta, limit: timedelta
) -> pl.DataFrame:
    """The groups that were under way at ``start``, and when they first paused.

    ``rows`` holds ``ts`` and the columns ``by``, from ``gap`` before ``start`` to a gap beyond ``limit`` after it, in
    any order; null is a value like others. A group is under way when one of its rows before ``start`` is followed, at
    most ``gap`` later, by one at or after it; it lasts until the last row before a longer pause. Those that
    last longer than ``limit`` after ``start`` are left out. Returns the columns ``by`` and ``until``, the time of that
    last row.
    """
    last = rows.filter(pl.col("ts") < start).group_by(by).agg(pl.col("ts").max())
    here = rows.filter(pl.col("ts") >= start).join(last.select(by), on=by, how="semi", nulls_equal=True)
    together = pl.concat([last.select(*by, "ts"), here.select(*by, "ts")]).sort("ts")
    paused = (pl.col("ts").diff() > gap).fill_null(False).cum_sum().over(by)
    groups = together.filter(paused == 0).group_by(by).agg(until=pl.col("ts").max())
    return groups.filter(pl.col("until").is_between(start, start + limit)).sort(by)


def tied(rows: pl.DataFrame, groups: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` (all of them from the slice) belong to one of the groups that `under_way` found.

    Shape (rows,), in the order of the rows. For an incident these are all rows of the service up to its last anomaly,
    not only the anomalies: left alone, the normal ones would have a prevalence of their own, and features of the
    incident.
    """
    by = [name for name in groups.columns if name != "until"]
    found = rows.select("ts", *by).join(groups, on=by, how="left", nulls_equal=True, maintain_order="left")
    return found.select((pl.col("ts") <= pl.col("until")).fill_null(False)).to_series().to_numpy()


def clusters(
    ts_us: npt.NDArray[np.int64], services: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], limit: timedelta
) -> npt.NDArray[np.int64]:
    """Number of the service-hour of each row, where hours of a service that an incident connects are one.

    All arrays of shape (rows,): times in microseconds, codes of services, and which rows are anomalies. The numbers run
    from 0, by service and time. An incident longer than ``limit`` connects nothing, for a service that is never quiet
    would be a single cluster.
    """
    if not ts_us.size:
        return np.empty(0, dtype=np.int64)
    hours = ts_us // (3_600 * 1_000_000)
    span = int(hours.max() - hours.min()) + 1
    cells, cell_of = np.unique(services * span + (hours - hours.min()), return_inverse=True)
    joined = np.zeros(cells.size, dtype=np.bool_)
    if positive.any():
        order = np.lexsort((ts_us[positive], services[positive]))
        when, who, where = (of[positive][order] for of in (ts_us, services, cell_of))
        starts = np.append(True, (np.diff(who) != 0) | (np.diff(when) > INCIDENT_GAP // _MICROSECOND))
        firsts = np.flatnonzero(starts)
        lasts = np.append(firsts[1:], when.size) - 1
        short = (when[lasts] - when[firsts] <= limit // _MICROSECOND)[starts.cumsum() - 1]
        # The gap is shorter than an hour, so two anomalies of an incident lie in one hour or in neighbouring ones.
        crossing = ~starts & short & (np.diff(where, prepend=where[0]) != 0)
        joined[where[crossing]] = True
    return np.asarray(((~joined).cumsum() - 1)[cell_of], dtype=np.int64)
