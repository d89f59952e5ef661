"""A finding of the doctor, and the commands that mend one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)
_MAX_WINDOWS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One broken promise, or one that soon may be."""

    check: str
    severity: str  # error: a promise is broken. warning: it holds, but somebody should look
    message: str
    command: str
    count: int


def error(check: str, message: str, command: str, count: int = 1) -> Finding:
    """A promise is broken."""
    return Finding(check=check, severity="error", message=message, command=command, count=count)


def warning(check: str, message: str, command: str, count: int = 1) -> Finding:
    """The promises hold, and somebody should look."""
    return Finding(check=check, severity="warning", message=message, command=command, count=count)


def islands(hours: list[tuple[datetime, int]]) -> list[tuple[datetime, datetime, int]]:
    """Hours with their rows, joined where they touch; beyond a few windows the last reaches to the end."""
    joined: list[tuple[datetime, datetime, int]] = []
    for hour, rows in sorted(hours):
        if joined and (hour <= joined[-1][1] or len(joined) == _MAX_WINDOWS):
            joined[-1] = (joined[-1][0], hour + HOUR, joined[-1][2] + rows)
        else:
            joined.append((hour, hour + HOUR, rows))
    return joined


def score_again(name: str, first: datetime, last: datetime) -> str:
    """The command that scores a span again, in whole hours as far as they are over: a window may not end after now."""
    start, end = (moment.astimezone(UTC) for moment in (first, last))
    start = start.replace(minute=0, second=0, microsecond=0)
    whole = end.replace(minute=0, second=0, microsecond=0)
    end = whole if whole == end and whole > start else whole + HOUR
    now = datetime.now(UTC).replace(microsecond=0)
    to = f"{end:%Y-%m-%dT%H:%M}" if end <= now or start >= now else f"{now:%Y-%m-%dT%H:%M:%S}"
    return f"millrace score {name} --from {start:%Y-%m-%dT%H:%M} --to {to}"


def psql(statement: str) -> str:
    """The command that runs SQL, where Millrace has none of its own."""
    return f'psql "$(millrace dsn --show)" -c "{statement}"'
