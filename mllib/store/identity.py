"""Which cluster the database lives in. Rows and claims carry its transaction ids, which mean nothing in another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from mllib.errors import RestoredElsewhere
from mllib.store.database import connection
from mllib.store.queries import queries

_BATCH = 500_000
_ADVANCE = text("call millrace.advance_transaction_ids(:target, :at_most)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """``moved``: another cluster than the one on record. ``behind``: its transaction ids are lower than the claims'."""

    moved: bool
    behind: bool

    @property
    def at_home(self) -> bool:
        return not (self.moved or self.behind)


def identity(conn: Connection) -> Identity:
    """Where the database is, as far as PostgreSQL tells. A matter of a millisecond."""
    row = conn.execute(queries["identity.state"]).one()
    known = row.here is not None and row.recorded is not None
    return Identity(moved=known and row.here != row.recorded, behind=row.behind)


def require_own(conn: Connection) -> None:
    """Raises RestoredElsewhere when the database was restored into another cluster and not adopted there yet."""
    if not identity(conn).at_home:
        raise RestoredElsewhere


def adopt(engine: Engine, *, progress: Callable[[int, int], None] | None = None) -> int | None:
    """Makes a restored database at home in its new cluster. Returns how many transaction ids it passed over.

    The cluster's count is moved past every id that a row or a claim has: from then on what was seen stays seen, and
    what comes is new. Can be stopped and called again. ``progress`` hears (passed over, in all). None when the database
    was at home already.
    """
    with connection(engine) as pooled:
        # The ids are used up by commits, so there must be no transaction around them.
        conn = pooled.execution_options(isolation_level="AUTOCOMMIT")
        conn.execute(queries["identity.lock"])
        # Nothing hangs on these commits, so nobody need wait for the disk.
        conn.execute(text("set synchronous_commit = off"))
        try:
            if identity(conn).at_home:
                return None
            counts = conn.execute(queries["identity.counts"]).one()
            first, here, target = counts.here, counts.here, counts.target
            while here < target:
                conn.execute(_ADVANCE, {"target": target, "at_most": _BATCH})
                here = conn.execute(queries["identity.counts"]).one().here
                if progress is not None:
                    progress(min(here, target) - first, target - first)
            conn.execute(text("reset synchronous_commit"))
            conn.execute(queries["identity.record"], {"advanced": max(0, target - first)})
            return int(max(0, target - first))
        finally:
            conn.execute(text("reset synchronous_commit"))
            conn.execute(queries["identity.unlock"])
