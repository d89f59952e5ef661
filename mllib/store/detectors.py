"""The small number that a detector's name has in this database."""

from __future__ import annotations

from sqlalchemy import Connection

from mllib.detectors import detector as detector_named
from mllib.store.queries import queries


def identify(conn: Connection, name: str) -> int:
    """The detector's number; it gets one the first time. Raises UnknownDetector for a name that no detector has."""
    number = conn.execute(queries["detectors.find"], {"name": name}).scalar_one_or_none()
    if number is None:
        source = detector_named(name).source
        conn.execute(queries["detectors.add"], {"name": name, "source": source})
        number = conn.execute(queries["detectors.find"], {"name": name}).scalar_one()
    return int(number)
