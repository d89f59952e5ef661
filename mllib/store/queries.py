"""Named SQL: fixed statements live in ``sql/queries/<topic>.sql`` and are called as ``queries["topic.name"]``.

Each starts with a line ``-- name`` and a line ``-- what it does``; binds are written ``:like_this``.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from sqlalchemy import TextClause, text

from mllib.settings import SQL

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


class _Queries:
    def __getitem__(self, name: str) -> TextClause:
        return text(_all()[name])

    def raw(self, name: str) -> str:
        """The bare text, for COPY, which takes no binds of SQLAlchemy's; here binds are ``%(like_this)s``."""
        return _all()[name]


queries = _Queries()
