"""Access logs of nginx and Apache in the "combined" or "common" format, with an optional request time at the end.

    10.1.2.3 - ann [12/Mar/2031:10:15:32 +0000] "GET /cart HTTP/1.1" 200 512 "-" "curl/8.5" 0.042

The request is the message. A last number with a decimal point is seconds, as nginx's ``$request_time``; a whole number
is microseconds, as Apache's ``%D``; ``rt=`` before it does no harm. Client, user, size, referrer, agent and whatever
else the line ends with go to ``attributes``. Such a line has no level and names no service: none is made up.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused, milliseconds, share_read, status
from mllib.ingest.timestamps import MONTHS, in_utc, unreadable

NAME = "combined"
DESCRIPTION = "nginx and Apache access logs, combined or common, with an optional request time"

# Possessive quantifiers, and nothing that two parts could share: a hostile line costs time in proportion to its length.
_match = re.compile(
    r"(?P<client>[^\s\"]++) (?P<ident>\S++) (?P<user>[^\[\"]*+)"
    r"\[(?P<time>\d{1,2}/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<request>(?:[^"\\]++|\\.)*+)" (?P<status>\d{3}|-) (?P<bytes>\d++|-)'
    r'(?: "(?P<referrer>(?:[^"\\]++|\\.)*+)" "(?P<agent>(?:[^"\\]++|\\.)*+)")?'
    r"(?: (?P<rest>.*))?",
    re.DOTALL | re.ASCII,
).fullmatch
_request_time = re.compile(r'"?(?:\w{1,20}=)?(\d{1,15})(\.\d{1,9})?"?', re.ASCII).fullmatch


def sniff(lines: list[str]) -> float:
    return share_read(_parse, lines)


def parser(options: ParseOptions) -> Parse:
    return _parse


def _parse(line: str) -> LogRecord:
    match = _match(line)
    if match is None and line[:1] == line[-1:] == '"':  # some exports put each whole line into quotes
        match = _match(line[1:-1])
    if match is None:
        raise Refused("not an access log line in the combined or common format")
    client, ident, user, time, request, code, size, referrer, agent, rest = match.groups()
    response_time, extra = _trailing(rest)
    texts = {"client": client, "ident": ident, "user": user.strip(), "referrer": referrer, "agent": agent}
    attributes: dict[str, object] = {name: value for name, value in texts.items() if value and value != "-"}
    if size != "-":
        attributes["bytes"] = int(size) if len(size) < 19 else size
    if extra:
        attributes["extra"] = extra
    return LogRecord(
        *(_moment(time), None, None, None, None, request, response_time, status(code)), None, attributes, None
    )


def _trailing(rest: str | None) -> tuple[float | None, str | None]:
    """The request time in milliseconds out of what follows the agent, and what remains of it."""
    if not rest:
        return None, None
    before, _, last = rest.rpartition(" ")
    match = _request_time(last)
    if match is None:
        return None, rest
    whole, fraction = match.groups()
    return milliseconds(float(whole + fraction) * 1000 if fraction else int(whole) / 1000), before or None


@lru_cache(maxsize=4096)
def _moment(text: str) -> datetime:
    """12/Mar/2031:10:15:32 +0000"""
    day, month, rest = text.split("/", 2)
    try:
        naive = datetime(int(rest[:4]), MONTHS[month], int(day), int(rest[5:7]), int(rest[8:10]), int(rest[11:13]))  # noqa: DTZ001
        sign = -1 if rest[14] == "-" else 1
        zone = timezone(sign * timedelta(hours=int(rest[15:17]), minutes=int(rest[17:19])))
    except (ValueError, KeyError):
        raise unreadable(text) from None
    return in_utc(naive, zone if zone != UTC else UTC)
