"""Logs of the Hadoop file system, as published.

    081109 203518 143 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_-16089996879198 terminating

The first block that the message names is the trace id: the published labels are per block. The thread's number goes
to ``attributes["pid"]``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

import polars as pl

from mllib.ingest.base import Columns, LogRecord, Parse, ParseOptions, Refused, share_read
from mllib.ingest.columns import by_pattern
from mllib.ingest.timestamps import in_utc, unreadable

NAME = "hdfs"
DESCRIPTION = "HDFS lines; the first block id of the message becomes the trace id"

_block = re.compile(r"blk_-?\d{1,20}").search
_USUAL = (
    r"^(?<date>[0-9]{6}) (?<time>[0-9]{4}[0-5][0-9]) (?<pid>[0-9]+) (?<level>[^ ]+) (?<service>[^ ]+): "
    r"(?<message>[\x00-\x7f]*)$"
)


def sniff(lines: list[str]) -> float:
    return share_read(parser(ParseOptions()), lines)


def columns(options: ParseOptions) -> Columns | None:
    """Lines in ASCII, if their times are of UTC."""
    if options.timezone is not UTC:
        return None
    digits = pl.concat_str(pl.lit("20"), "date", "time")
    message = pl.col("message")
    return by_pattern(
        _USUAL,
        ts=digits.str.to_datetime("%Y%m%d%H%M%S", strict=False, time_unit="us").dt.replace_time_zone("UTC"),
        level=pl.col("level"),
        service=pl.col("service"),
        message=message,
        trace_id=message.str.extract("(blk_-?[0-9]{1,20})"),
        attributes=pl.format('{{"pid": "{}"}}', "pid"),
    )


def parser(options: ParseOptions) -> Parse:
    @lru_cache(maxsize=4096)
    def moment(date: str, time: str) -> datetime:
        if len(date) == 6 and len(time) == 6 and (date + time).isdecimal():
            try:
                naive = datetime(  # noqa: DTZ001 - the zone is put in on the same line
                    2000 + int(date[:2]), int(date[2:4]), int(date[4:]), int(time[:2]), int(time[2:4]), int(time[4:])
                )
                return in_utc(naive, options.timezone)
            except ValueError:
                pass
        raise unreadable(f"{date} {time}")

    def parse(line: str) -> LogRecord:
        parts = line.split(" ", 5)
        if len(parts) < 6:
            raise Refused(f"{len(parts)} fields where an HDFS line has 6")
        date, time, pid, level, component, message = parts
        if component[-1:] != ":":
            raise Refused("the fifth field, the component, does not end in a colon")
        block = _block(message)
        service = component[:-1] or None
        trace_id = block[0] if block else None
        return LogRecord(
            moment(date, time), None, level or None, service, None, message, None, None, trace_id, {"pid": pid}, None
        )

    return parse
