"""What the pages show, out of Millrace's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from mllib import settings
from mllib.errors import DatabaseUnavailable
from mllib.store import reports
from mllib.store.database import engine_for, transaction
from mllib.store.migrate import require_schema
from mllib.store.reports import StoredPage


def _engine() -> Engine:
    dsn = settings.dsn_from_environment()
    if dsn is None:
        raise DatabaseUnavailable("The api-server has no MILLRACE_DSN, so it cannot show reports. Set it and restart.")
    engine = engine_for(dsn)
    require_schema(engine)
    return engine


def listed(readable: Callable[[list[str]], list[str]]) -> list[dict[str, Any]]:
    """The verdicts with a report, the latest first, of the detectors that ``readable`` leaves of those there are."""
    with transaction(_engine()) as conn:
        return reports.listed(conn, readable(reports.detectors(conn)))


def page(decision_id: int) -> StoredPage | None:
    """The report of a decision, None where there is no such decision."""
    with transaction(_engine()) as conn:
        return reports.page(conn, decision_id)
