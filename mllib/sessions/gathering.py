"""Log lines gathered by session, each as the number of its template."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.errors import BadInput
from mllib.features.encoders import factorize
from mllib.features.text import distinct_templates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """Sessions in the order of their first lines."""

    names: pl.Series
    of: Ints
    """Shape (lines,): the session of each line, ascending; within a session by time."""
    template: Ints
    """Shape (lines,): position in ``templates``."""
    templates: pl.Series
    since: Floats
    """Shape (lines,): seconds since the session's first line."""
    started: pl.Series
    """When each session's first line came, as the lines say it."""
    observed: Floats
    """Shape (sessions,): seconds from its first line to the end of the observation, at least 0."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lines(self) -> Ints:
        """How many lines each session has."""
        return np.bincount(self.of, minlength=len(self)).astype(np.int64)

    @property
    def lasted(self) -> Floats:
        """Seconds from the first to the last line of each session."""
        last = np.cumsum(self.lines) - 1
        return self.since[last] if len(self) else np.empty(0)

    def take(self, places: Ints) -> Sessions:
        """Some of the sessions; ``places`` are ascending."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[places] = True
        mine = chosen[self.of]
        return Sessions(
            names=self.names.gather(places),
            of=(np.cumsum(chosen) - 1)[self.of[mine]],
            template=self.template[mine],
            templates=self.templates,
            since=self.since[mine],
            started=self.started.gather(places),
            observed=self.observed[places],
        )

    def part(self, begin: int, end: int) -> Sessions:
        """The sessions from ``begin`` up to ``end``, that one left out."""
        first, last = np.searchsorted(self.of, [begin, end])
        return Sessions(
            names=self.names[begin:end],
            of=self.of[first:last] - begin,
            template=self.template[first:last],
            templates=self.templates,
            since=self.since[first:last],
            started=self.started[begin:end],
            observed=self.observed[begin:end],
        )


def gather(lines: pl.DataFrame, *, observed_until: datetime | None = None) -> Sessions:
    """The sessions of some lines.

    ``lines`` has the columns ``trace_id`` (String; lines without one belong to no session), ``ts`` (Datetime) and
    either ``template`` or ``message`` (String). Others do not matter. Lines of one moment stay in their order. Without
    ``observed_until`` the observation ends with the last line: say it when the lines are part of a log, for a session
    without an end is one thing while it is watched and another when the watching has stopped.

    Raises BadInput for columns that are missing or of another type, and for a line without a time.
    """
    text = "template" if "template" in lines.columns else "message"
    for name, kinds in (("trace_id", (pl.String,)), ("ts", (pl.Datetime,)), (text, (pl.String,))):
        if name not in lines.columns:
            raise BadInput(f"Sessions are made of the columns trace_id, ts and message; {name} is missing.")
        found = lines[name].dtype
        if not isinstance(found, kinds) and not (name != "ts" and found == pl.Null):
            raise BadInput(f"Column {name} holds {found}, but sessions need {kinds[0].__name__}.")
    lines = lines.filter(pl.col("trace_id").is_not_null())
    if lines["ts"].null_count():
        raise BadInput(f"{lines['ts'].null_count()} lines have no time, so their place in a session is not known.")
    lines = lines.sort("ts", maintain_order=True)
    of, names = factorize(lines["trace_id"].cast(pl.String))
    if text == "template":
        template, templates = factorize(lines["template"].cast(pl.String).fill_null(""))
    else:
        template, templates = distinct_templates(lines["message"])
    order = np.argsort(of, kind="stable")
    of = of[order]
    moments = lines["ts"].gather(order)
    seconds = moments.dt.epoch("us").to_numpy() / 1e6
    first = np.searchsorted(of, np.arange(len(names)))
    start = seconds[first]
    if observed_until is None:
        end = float(seconds.max()) if len(seconds) else 0.0
    else:
        end = pl.Series([observed_until]).dt.epoch("us").item() / 1e6
    return Sessions(
        names=names,
        of=of,
        template=template[order],
        templates=templates,
        since=seconds - start[of],
        started=moments.gather(first),
        observed=np.maximum(end - start, 0.0),
    )
