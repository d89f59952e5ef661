"""The older syslog, as most daemons still write it, with and without the priority in front.

    <34>Oct 11 22:14:15 web-1 sshd[4711]: Failed password for root
    Oct 11 22:14:15 web-1 kernel: link up
    2031-10-11T22:14:15.003+02:00 web-1 sshd[4711]: the same with rsyslog's full time stamp

The severity in the priority is the level. The times have no year: the option ``year`` gives that of the first line, and
January after December is the next one. The process id and the facility go to ``attributes``.
"""

from __future__ import annotations

import re
from datetime import datetime

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused, share_read
from mllib.ingest.timestamps import MONTHS, from_text, in_utc, unreadable, year_of

NAME = "syslog_rfc3164"
DESCRIPTION = "syslog as of RFC 3164, with or without priority; needs a year, unless the times are ISO 8601"
STATEFUL = True

SEVERITIES = ("EMERG", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG")
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "security", "console", "clock", *(f"local{number}" for number in range(8))),
)

_PRIORITY = r"(?:<(?P<priority>\d{1,3})>)?+"
_TAG = r"(?P<app>[^\s:\[\]]{1,256}+)(?:\[(?P<pid>[^\]\s]{0,64}+)\])?+:\s?"
_bsd = re.compile(
    rf"{_PRIORITY}(?P<month>[A-Z][a-z]{{2}}) {{1,2}}(?P<day>\d{{1,2}}) (?:(?P<year>\d{{4}}) )?+"
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6})\d*+)?+ (?P<host>\S++) "
    rf"(?:{_TAG})?(?P<message>.*)",
    re.DOTALL | re.ASCII,
).fullmatch
# Without a tag a container's line would look the same, so here it has to be there.
_iso = re.compile(
    rf"{_PRIORITY}(?P<time>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\S*+) (?P<host>\S++) {_TAG}(?P<message>.*)",
    re.DOTALL | re.ASCII,
).fullmatch


def priority(digits: str | None) -> tuple[str | None, dict[str, object]]:
    """The level and the facility, as an attribute, that a priority stands for. Raises Refused beyond 191."""
    if digits is None:
        return None, {}
    number = int(digits)
    if number > 191:
        raise Refused(f"the priority {number} is more than 191")
    return SEVERITIES[number % 8], {"facility": FACILITIES[number // 8]}


def sniff(lines: list[str]) -> float:
    return share_read(parser(ParseOptions(year=2000)), lines)  # a leap year


def parser(options: ParseOptions) -> Parse:
    year = year_of(options.year)

    def moment(parts: dict[str, str | None]) -> datetime:
        month = MONTHS.get(str(parts["month"]), 0)
        day, hour, minute, second = (int(str(parts[name])) for name in ("day", "hour", "minute", "second"))
        micros = int((parts["fraction"] or "").ljust(6, "0"))
        its_year = int(parts["year"]) if parts["year"] else year(month)
        try:
            naive = datetime(its_year, month, day, hour, minute, second, micros)  # noqa: DTZ001
        except ValueError:
            raise unreadable(f"{parts['month']} {day} {hour:02}:{minute:02}:{second:02}") from None
        return in_utc(naive, options.timezone)

    def parse(line: str) -> LogRecord:
        match = _bsd(line)
        if match is not None:
            parts = match.groupdict()
            level, attributes = priority(parts["priority"])
            ts = moment(parts)
        else:
            match = _iso(line)
            if match is None:
                raise Refused("not a syslog line as of RFC 3164")
            parts = match.groupdict()
            level, attributes = priority(parts["priority"])
            ts = from_text(parts["time"], options.timezone)
        if parts["pid"]:
            attributes["pid"] = parts["pid"]
        return LogRecord(
            ts, None, level, parts["app"], parts["host"], parts["message"], None, None, None, attributes or None, None
        )

    return parse
