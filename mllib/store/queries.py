"""Named SQL: fixed statements live in ``sql/queries/<topic>.sql`` and are called as ``queries["topic.name"]``.

Each starts with a line ``-- name`` and a line ``-- what it does``; binds are written ``:like_this``. A statement that
is the same for every source is written once, with words in the place of what differs, and called as
``queries.of(source, "topic.name")``:

- ``source_rows`` is the table, ``source_row_id`` its id column, ``'source_form'`` the form of its rows, or null;
- ``source_has(alias)`` says whether a row of the table is one of the source, ``source_has_label(alias)`` whether one of
  ``labels`` on the table is on such a row;
- ``source_segments(alias)`` is an array of what tells rows apart, ``source_text(alias)`` a row in words.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from sqlalchemy import TextClause, text

from mllib.settings import SQL
from mllib.sources import Source, Table

_HAS = re.compile(r"source_has\((\w+)\)")
_HAS_LABEL = re.compile(r"source_has_label\((\w+)\)")
_SEGMENTS = re.compile(r"source_segments\((\w+)\)")
_TEXT = re.compile(r"source_text\((\w+)\)")
_HEAD = re.compile(r"^-- name: (?P<name>[a-z_]+)\n-- (?P<description>\S.*)\n", re.MULTILINE)


def parse(path: Path) -> dict[str, str]:
    """The statements of one file by ``topic.name``.

    Raises ValueError when the file holds text before its first name line, or a name without its description line.
    """
    content = path.read_text()
    heads = list(_HEAD.finditer(content))
    if len(heads) != content.count("-- name:") or not heads or content[: heads[0].start()].strip():
        raise ValueError(f"{path.name}: every statement starts with '-- name: x' and a line '-- what it does'")
    ends = [head.start() for head in heads[1:]] + [len(content)]
    return {
        f"{path.stem}.{head['name']}": content[head.end() : end].strip().rstrip(";")
        for head, end in zip(heads, ends, strict=True)
    }


@cache
def _all() -> dict[str, str]:
    return {name: sql for path in sorted((SQL / "queries").glob("*.sql")) for name, sql in parse(path).items()}


@cache
def _filled(name: str, table: Table, form: str | None, segments: tuple[str, ...] = ()) -> str:
    # Nothing comes from outside: the words are replaced by names of the closed list in mllib.sources.
    statement = _all()[name].replace("source_rows", table.name).replace("source_row_id", table.row_id)
    statement = _SEGMENTS.sub(lambda of: _array(of[1], segments), statement)
    statement = _TEXT.sub(lambda of: f"concat_ws(' ', {', '.join(f'{of[1]}.{c}' for c in table.words)})", statement)
    if form is None:
        return _HAS_LABEL.sub("true", _HAS.sub("true", statement.replace("'source_form'", "null")))
    statement = statement.replace("'source_form'", f"'{form}'")
    statement = _HAS.sub(rf"\1.form = '{form}'", statement)
    return _HAS_LABEL.sub(
        rf"exists (select from millrace.{table.name} as f"
        rf" where f.ts = \1.ts and f.{table.row_id} = \1.row_id and f.form = '{form}')",
        statement,
    )


def _array(alias: str, expressions: tuple[str, ...]) -> str:
    return f"array[{', '.join(f'{alias}.{expression}' for expression in expressions)}]"


def _expressions(source: Source) -> tuple[str, ...]:
    features = {column.name for column in source.features}
    return tuple(f"features ->> '{name}'" if name in features else name for name in source.segments)


class _Queries:
    def __getitem__(self, name: str) -> TextClause:
        return text(_all()[name])

    def of(self, rows: Source | Table, name: str) -> TextClause:
        """A statement on the rows of a source, or on all of a table."""
        if isinstance(rows, Table):
            return text(_filled(name, rows, None))
        return text(_filled(name, rows.table, rows.form, _expressions(rows)))

    def raw(self, name: str) -> str:
        """The bare text, for COPY, which takes no binds of SQLAlchemy's; here binds are ``%(like_this)s``."""
        return _all()[name]


queries = _Queries()
