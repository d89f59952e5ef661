"""The small number that a detector's name has in this database, and the source that it reads."""

from __future__ import annotations

from sqlalchemy import Connection

from mllib import sources
from mllib.detectors import detector as detector_named
from mllib.sources import Source
from mllib.store.queries import queries


def identify(conn: Connection, name: str) -> int:
    """The detector's number; it gets one the first time. Raises UnknownDetector for a name that no detector has."""
    number = conn.execute(queries["detectors.find"], {"name": name}).scalar_one_or_none()
    if number is None:
        source = source_of(name)
        conn.execute(queries["detectors.add"], {"name": name, "source": source.table.name, "form": source.form})
        number = conn.execute(queries["detectors.find"], {"name": name}).scalar_one()
    return int(number)


def source_of(name: str) -> Source:
    """What the detector of that name reads. Raises UnknownDetector for a name that no detector has."""
    return sources.source(detector_named(name).source)
