"""Verdicts out of a file, filed under the rows that they name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.store import labels
from mllib.store.database import transaction


def label(engine: Engine, path: Path, *, source: str | None = None, by: str) -> int:
    """Files the verdicts of a CSV file with the columns [source,]id,label[,note]; id is the line's id in its source.

    Returns how many there were. Raises BadInput, and files none, when the columns are others or a row is not found.
    """
    with transaction(engine) as conn:
        staged = labels.stage(conn, verdicts_of(path, source))
        missing, ambiguous = labels.misnamed(conn)
        if missing.verdicts:
            raise BadInput(
                f"{missing.verdicts:,} of {staged:,} labels in {path.name} name no row, such as "
                f"{', '.join(missing.examples)}; none was filed. Is the source right (--source NAME), and are the logs "
                "ingested?"
            )
        if ambiguous.verdicts:
            raise BadInput(
                f"{ambiguous.verdicts:,} of {staged:,} labels in {path.name} name more than one row, such as "
                f"{', '.join(ambiguous.examples)}; none was filed. An id has to be unique within its source."
            )
        return labels.apply_staged(conn, origin="import", labelled_by=by)


def verdicts_of(path: Path, source: str | None) -> Iterator[labels.StagedLabel]:
    """The verdicts of a CSV file, see `label`; ``source`` where it has no such column. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from _read_verdicts(path, csv.DictReader(lines), source)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path.name} is no CSV file in UTF-8 that can be read: {error}.") from None


def _read_verdicts(path: Path, rows: csv.DictReader[str], source: str | None) -> Iterator[labels.StagedLabel]:
    columns = rows.fieldnames or ()
    if not {"id", "label"} <= set(columns) <= {"source", "id", "label", "note"}:
        raise BadInput(
            f"{path.name} has the columns {', '.join(columns) or '(none)'}; a label file has [source,]id,label[,note]."
        )
    for row in rows:
        line = f"{path.name}, line {rows.line_num}"
        if None in row or any(value is not None and "\0" in value for value in row.values()):
            raise BadInput(f"{line}: there are more cells than columns, or a NUL byte.")
        of, label = row.get("source") or source, (row["label"] or "").strip()
        if of is None:
            raise BadInput(f"{line} names no source, so say whose labels they are with --source NAME.")
        if not row["id"] or not label:
            raise BadInput(f"{line}: id or label is empty.")
        yield labels.StagedLabel(source=of, source_id=row["id"], label=label, note=row.get("note") or None)
