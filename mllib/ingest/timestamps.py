"""Time stamps of logs, read fast and into UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from mllib.ingest.base import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


def unreadable(text: object) -> Refused:
    """The refusal of a time stamp, which shows no more of it than fits on a line."""
    return Refused(f"the time stamp {str(text)[:40]!r} cannot be read")


def from_text(text: str, zone: tzinfo = UTC) -> datetime:
    """ISO 8601 (also with a space or a decimal comma) or a number since 1970.

    Without a zone it is taken to be in ``zone``. Raises Refused.
    """
    if text.isdecimal() and len(text) >= 9:
        return from_number(int(text[:20]))
    try:
        return in_utc(datetime.fromisoformat(text), zone)
    except ValueError:
        pass
    try:
        return from_number(float(text))
    except ValueError:
        raise unreadable(text) from None


def from_number(value: float) -> datetime:
    """A time since 1970 in seconds, milli-, micro- or nanoseconds; which of them, its size says.

    The sizes are apart for every time between 1973 and 5138. Raises Refused.
    """
    size = abs(value)
    if not size < 1e20:  # also true of NaN
        raise unreadable(value)
    if size < 1e11:
        micros = round(value * 1_000_000)
    elif size < 1e14:
        micros = round(value * 1000)
    elif size < 1e17:
        micros = round(value)
    else:
        micros = int(value) // 1000
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise unreadable(value) from None


@lru_cache(maxsize=4096)
def from_seconds(text: str) -> datetime:
    """Whole seconds since 1970. Cached, because the lines of one second follow each other. Raises Refused."""
    try:
        return EPOCH + timedelta(seconds=int(text))
    except (ValueError, OverflowError):
        raise unreadable(text) from None


def in_utc(moment: datetime, zone: tzinfo) -> datetime:
    """``moment`` in UTC; a naive one is taken to be in ``zone``. Raises Refused where UTC has no such time."""
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        if zone is UTC:
            return moment.replace(tzinfo=UTC)
        moment = moment.replace(tzinfo=zone)
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise unreadable(moment.isoformat()) from None


def one_after_the_other(start: datetime | None) -> Callable[[], datetime]:
    """Makes the function that gives the times of a file that has none, line after line: a second apart from ``start``.

    Without ``start`` they are of now, a millisecond apart.
    """
    clock, step = (datetime.now(UTC), timedelta(milliseconds=1)) if start is None else (start, timedelta(seconds=1))

    def moment() -> datetime:
        nonlocal clock
        before, clock = clock, clock + step
        return before

    return moment


def year_of(first: int | None) -> Callable[[int], int]:
    """Makes the function that says the year of a month, line after line, from the year of the first line on.

    The step between December and January, in either order, is the turn of the year. It raises Refused for no year.
    """
    year = first
    last_month: int | None = None

    def of(month: int) -> int:
        nonlocal year, last_month
        if year is None:
            raise Refused("the time stamp has no year: say that of the first line with --year")
        if 1 <= month <= 12:  # no other may count as a turn
            if last_month is not None and abs(month - last_month) == 11:
                year += 1 if month == 1 else -1
            last_month = month
        return year

    return of
