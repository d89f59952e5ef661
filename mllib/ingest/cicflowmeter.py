"""CSV files of CICFlowMeter: a header, then one flow a line.

Columns are known by their names, whatever the case and the blanks around them, by those of version 4 as well as by the
older ones of CICIDS2017 ("Avg Fwd Segment Size", "Init_Win_bytes_forward"). A file that lacks one, has one that no
version knows, or in whose first flow a column is no number, is refused with the names of these columns.

``Label`` becomes the label: "0" for BENIGN, else the name of the attack, which is positive. Addresses, Dst Port,
Protocol and Timestamp are what they say; without a Timestamp the time is given as for ``nsl_kdd``. Flow ID, id and Src
Port go to ``attributes``: an id of CICFlowMeter is not that of one flow. What is infinite or NaN, as rates of flows
without a duration are, is stored as not known.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from mllib.ingest.base import FileRefused, FlowRecord, Parse, ParseOptions, Refused
from mllib.ingest.timestamps import from_text, one_after_the_other
from mllib.sources import CICFLOWMETER_FEATURES

NAME = "cicflowmeter"
DESCRIPTION = "CSV of CICFlowMeter with a header; the column Label becomes the label"
TABLE = "network_flows"
STATEFUL = True

_OLDER = {
    "Total Fwd Packets": "Total Fwd Packet",
    "Total Backward Packets": "Total Bwd packets",
    "Tot Fwd Pkts": "Total Fwd Packet",
    "Tot Bwd Pkts": "Total Bwd packets",
    "Total Length of Fwd Packets": "Total Length of Fwd Packet",
    "Total Length of Bwd Packets": "Total Length of Bwd Packet",
    "Min Packet Length": "Packet Length Min",
    "Max Packet Length": "Packet Length Max",
    "CWE Flag Count": "CWR Flag Count",
    "Avg Fwd Segment Size": "Fwd Segment Size Avg",
    "Avg Bwd Segment Size": "Bwd Segment Size Avg",
    "Fwd Avg Bytes/Bulk": "Fwd Bytes/Bulk Avg",
    "Fwd Avg Packets/Bulk": "Fwd Packet/Bulk Avg",
    "Fwd Avg Bulk Rate": "Fwd Bulk Rate Avg",
    "Bwd Avg Bytes/Bulk": "Bwd Bytes/Bulk Avg",
    "Bwd Avg Packets/Bulk": "Bwd Packet/Bulk Avg",
    "Bwd Avg Bulk Rate": "Bwd Bulk Rate Avg",
    "Init_Win_bytes_forward": "FWD Init Win Bytes",
    "Init_Win_bytes_backward": "Bwd Init Win Bytes",
    "act_data_pkt_fwd": "Fwd Act Data Pkts",
    "min_seg_size_forward": "Fwd Seg Size Min",
}
_NEWER = ("Fwd RST Flags", "Bwd RST Flags", "ICMP Code", "ICMP Type", "Total TCP Flow Time")
"""Features that older versions do not measure: not known where a file has no such column."""

_ABOUT = {
    "flowid": "source_id",
    "id": "id",
    "srcip": "src_ip",
    "sourceip": "src_ip",
    "srcport": "src_port",
    "sourceport": "src_port",
    "dstip": "dst_ip",
    "destinationip": "dst_ip",
    "dstport": "dst_port",
    "destinationport": "dst_port",
    "protocol": "protocol",
    "timestamp": "ts",
    "label": "label",
    "attemptedcategory": "attempted_category",
    "fwdheaderlength1": "",  # CICIDS2017 has this column twice
}
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp"}
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?( [AP]M)?", re.ASCII)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_FEATURES = {
    **{_plain(name): name for name in CICFLOWMETER_FEATURES},
    **{_plain(name): new for name, new in _OLDER.items()},
}


def sniff(lines: list[str]) -> float:
    """The header says it all."""
    try:
        names = {_plain(name) for name in _fields(lines[0])}
    except (IndexError, Refused):
        return 0.0
    return len({_FEATURES[name] for name in names if name in _FEATURES}) / len(CICFLOWMETER_FEATURES)


def parser(options: ParseOptions) -> Parse:
    read: Callable[[list[str]], FlowRecord] | None = None

    def parse(line: str) -> FlowRecord | None:
        nonlocal read
        fields = _fields(line)
        if read is None:
            read = _row_reader(fields, options)
            return None
        return read(fields)

    return parse


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader((line,), strict=True))
    except (csv.Error, StopIteration):
        raise Refused("not a line of CSV, or a quoted field that goes on in the next line") from None


def _row_reader(header: list[str], options: ParseOptions) -> Callable[[list[str]], FlowRecord]:
    features, about = _columns(header)
    counted = one_after_the_other(options.start)
    checked = False

    def read(fields: list[str]) -> FlowRecord:
        nonlocal checked
        now = counted()
        if len(fields) != len(header):
            raise Refused(f"{len(fields)} fields where the header has {len(header)}")
        values: dict[str, object] = {}
        wrong = []
        for name, place in features.items():
            try:
                number = float(fields[place])
            except ValueError:
                wrong.append(f"{name} ({fields[place][:40]!r})")
                continue
            # JSON has neither infinities nor NaN.
            values[name] = number if math.isfinite(number) else None
        if wrong:
            if not checked:
                raise FileRefused(f"Columns that hold no numbers: {', '.join(wrong)}.")
            raise Refused(f"no number in {', '.join(wrong)}")
        checked = True

        def text(column: str) -> str | None:
            return fields[about[column]].strip() or None if column in about else None

        protocol, label = text("protocol"), text("label")
        attributes: dict[str, object] = {
            name: value for name in ("id", "src_port", "attempted_category") if (value := text(name)) is not None
        }
        if (flow := text("source_id")) is not None:
            attributes["flow_id"] = flow
        return FlowRecord(
            _moment(text("ts"), options.timezone) if "ts" in about else now,
            None,
            NAME,
            text("src_ip"),
            text("dst_ip"),
            _port(text("dst_port")),
            None if protocol is None else _PROTOCOLS.get(protocol, protocol),
            values,
            attributes or None,
            None if label is None else "0" if label.upper() == "BENIGN" else label,
        )

    return read


def _columns(header: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Places of the features by name, and of what else is told of a flow. Raises FileRefused."""
    features: dict[str, int] = {}
    about: dict[str, int] = {}
    extra = []
    for place, name in enumerate(header):
        plain = _plain(name)
        if plain in _FEATURES:
            features.setdefault(_FEATURES[plain], place)
        elif plain in _ABOUT:
            about.setdefault(_ABOUT[plain], place)
        else:
            extra.append(name.strip() or "(a column without a name)")
    missing = [name for name in CICFLOWMETER_FEATURES if name not in features and name not in _NEWER]
    if missing or extra:
        said = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("extra", extra)) if names]
        raise FileRefused(f"Its columns are not those of CICFlowMeter; {'; '.join(said)}.")
    return features, about


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        port = float(text)
    except ValueError:
        raise Refused(f"the port {text[:40]!r} is no number") from None
    if not 0 <= port <= 65_535 or port != int(port):
        raise Refused(f"the port {text[:40]!r} is not from 0 to 65535")
    return int(port)


def _moment(text: str | None, zone: tzinfo) -> datetime:
    """Times such as 2017-07-03 11:57:51.590705 and, day first as CICFlowMeter writes them, 03/07/2017 08:55:58 AM."""
    if text is None:
        raise Refused("the Timestamp is empty")
    found = _SLASHED.fullmatch(text)
    if found is None:
        return from_text(text, zone)
    day, month, year, hour, minute = (int(found[part]) for part in range(1, 6))
    if found[8]:
        hour = hour % 12 + (12 if found[8] == " PM" else 0)
    try:
        moment = datetime(
            year, month, day, hour, minute, int(found[6] or 0), int((found[7] or "").ljust(6, "0")), tzinfo=zone
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(f"the Timestamp {text!r} is no time") from None
