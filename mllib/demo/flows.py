"""Synthetic, labelled network flows as CICFlowMeter measures them, to try the detectors of flows without a network.

An office with web, mail, names, logins and downloads; about one flow in four is part of an attack. Attacks come in
bursts, evenly over the days, so that every part of them has some of each kind. They are made to be found in part: some
of the office's own connections are refused like scanned ports, some pages are asked for as fast as by a flood, and
beacons look rather like the web.

A flow is drawn as packets that went there and back, their sizes, gaps and flags. What CICFlowMeter would measure is
worked out of these, so that its figures fit together, with Infinity and NaN where a flow has no duration.
"""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mllib.demo.flow_kinds import ATTACKS, KINDS, OWN, Kind, Rng, Values
from mllib.errors import BadInput
from mllib.sources import CICFLOWMETER_FEATURES

MIN_ROWS = 2_000
BURSTS_PER_KIND = 14
SHARE_PER_KIND = 0.04
BURST_SECONDS = 600
IDLE_AFTER = 5e6
"""µs without a packet from which on CICFlowMeter calls a flow idle."""

ABOUT = ("Flow ID", "Src IP", "Src Port", "Dst IP", "Dst Port", "Protocol", "Timestamp")


def generate_flows(
    path: Path, *, now: datetime | None = None, days: int = 14, rows: int = 9_000, seed: int = 13
) -> Path:
    """Write ``rows`` synthetic flows of the ``days`` before ``now``, in the order of time, each with its Label.

    The file is a gzip of CSV in CICFlowMeter's form. The last flow comes before ``now`` floored to the hour (default:
    the present). The same ``now`` and ``seed`` give the same bytes, and the file appears whole. Raises BadInput for
    less than a day, fewer than MIN_ROWS rows, or a naive ``now``.
    """
    if days < 1 or rows < MIN_ROWS:
        raise BadInput(f"The demo flows need at least 1 day and {MIN_ROWS:,} rows, got {days} and {rows}.")
    moment = now or datetime.now(UTC)
    if moment.tzinfo is None:
        raise BadInput(f"The end of the demo flows needs a time zone, got {moment.isoformat()}.")
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    rng = np.random.default_rng(seed)
    kinds, seconds = _schedule(rng, rows, days * 86_400.0, start.hour)
    lines = np.empty(rows, dtype=object)
    for name, kind in KINDS.items():
        mine = np.flatnonzero(kinds == name)
        times = [start + timedelta(microseconds=round(second * 1e6)) for second in seconds[mine].tolist()]
        lines[mine] = _lines(rng, kind, times, "BENIGN" if kind.weight else name)
    header = ",".join((*ABOUT, *CICFLOWMETER_FEATURES, "Label"))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    text = "\n".join([header, *lines.tolist()]) + "\n"
    part.write_bytes(gzip.compress(text.encode(), compresslevel=3, mtime=0))
    part.replace(path)
    return path


def _schedule(rng: Rng, rows: int, span: float, first_hour: int) -> tuple[npt.NDArray[np.str_], Values]:
    """What each flow is, and when, in seconds from the start and ascending. Nights are quiet, but not for attacks."""
    per_kind = int(rows * SHARE_PER_KIND)
    slot = span / BURSTS_PER_KIND
    names, moments = [], []
    for name in ATTACKS:
        start = np.arange(BURSTS_PER_KIND) * slot + rng.uniform(0, slot - BURST_SECONDS, BURSTS_PER_KIND)
        burst = np.arange(per_kind) % BURSTS_PER_KIND
        names.append(np.full(per_kind, name, dtype="U32"))
        moments.append(start[burst] + rng.uniform(0, BURST_SECONDS, per_kind))
    own = rows - per_kind * len(ATTACKS)
    hours = np.arange(span // 3_600)
    busy = 1.2 + np.sin((hours + first_hour - 9) / 24 * 2 * np.pi)
    names.append(rng.choice(list(OWN), size=own, p=np.array(list(OWN.values()))).astype("U32"))
    moments.append((rng.choice(hours, size=own, p=busy / busy.sum()) + rng.uniform(0, 1, own)) * 3_600)
    seconds = np.concatenate(moments)
    order = np.argsort(seconds, kind="stable")
    return np.concatenate(names)[order], seconds[order]


def _lines(rng: Rng, kind: Kind, times: list[datetime], label: str) -> list[str]:
    n = len(times)
    measured = _measured(rng, kind, n)
    columns = [_written(measured.get(name, np.zeros(n))) for name in CICFLOWMETER_FEATURES]
    protocol = 17 if kind.udp else 6
    lines = []
    ends = zip(rng.integers(2, 250, n).tolist(), rng.integers(32_768, 61_000, n).tolist(), strict=True)
    ports = rng.choice(kind.ports, n).tolist()
    for time, (host, port), to, figures in zip(times, ends, ports, zip(*columns, strict=True), strict=True):
        source = f"10.0.{host % 4}.{host}" if kind.weight else f"198.51.100.{host}"
        target = f"192.0.2.{1 + to % 20}"
        about = [f"{source}-{target}-{port}-{to}-{protocol}", source, port, target, to, protocol]
        lines.append(",".join([*map(str, about), f"{time:%Y-%m-%d %H:%M:%S.%f}", *figures, label]))
    return lines


def _measured(rng: Rng, kind: Kind, n: int) -> dict[str, Values]:
    """What CICFlowMeter says of ``n`` flows, by its names; what is not there is 0."""
    sent, received = kind.sent(rng, n), kind.received(rng, n)
    packets = sent + received
    gap = np.where(packets > 1, np.round(kind.gap(rng, n)), 0.0)
    duration = gap * (packets - 1)
    reset = (rng.random(n) < kind.reset) & (received > 0) & (not kind.udp)
    ended = np.where(reset | kind.udp | (packets < 4), 0.0, 2.0)
    header = np.full(n, 8.0 if kind.udp else 20.0 if kind.sent_bytes(rng, 1)[0] == 0 else 32.0)
    known: dict[str, Values] = {"Flow Duration": duration, "Total Fwd Packet": sent, "Total Bwd packets": received}
    bytes_of = {}
    for way, count, size in (("Fwd", sent, kind.sent_bytes), ("Bwd", received, kind.received_bytes)):
        mean = np.where(count > 0, np.round(size(rng, n), 2), 0.0)
        spread = np.where(count > 1, mean * rng.uniform(0.3, 1.1, n), 0.0)
        bytes_of[way] = np.round(mean * count)
        known |= {
            f"Total Length of {way} Packet": bytes_of[way],
            f"{way} Packet Length Max": np.round(mean + 1.3 * spread),
            f"{way} Packet Length Min": np.where(spread > 0.5 * mean, 0.0, np.round(mean - spread)),
            f"{way} Packet Length Mean": mean,
            f"{way} Packet Length Std": spread,
            f"{way} Segment Size Avg": mean,
            f"{way} Header Length": header * count,
            f"{way} Packets/s": _per_second(count, duration),
            f"Subflow {way} Bytes": bytes_of[way],
            f"{way} PSH Flags": np.where(mean > 0, np.round(count / 3), 0.0),
            f"{way} Bytes/Bulk Avg": np.where(count >= 40, bytes_of[way] / 4, 0.0),
            f"{way} Packet/Bulk Avg": np.where(count >= 40, count / 4, 0.0),
        }
        known |= _gaps(rng, f"{way} IAT", duration, count, kind.unevenness, total=True)
    known |= _gaps(rng, "Flow IAT", duration, packets, kind.unevenness)
    longest = known["Flow IAT Max"]
    idle = longest > IDLE_AFTER
    for figure in ("Mean", "Max", "Min"):
        known[f"Idle {figure}"] = np.where(idle, longest, 0.0)
        known[f"Active {figure}"] = np.where(idle, (duration - longest) / packets, 0.0)
    mean = (bytes_of["Fwd"] + bytes_of["Bwd"]) / packets
    spread = np.maximum(known["Fwd Packet Length Std"], known["Bwd Packet Length Std"])
    none = np.full(n, -1.0)
    known |= {
        "Flow Bytes/s": _per_second(bytes_of["Fwd"] + bytes_of["Bwd"], duration),
        "Flow Packets/s": _per_second(packets, duration),
        "Packet Length Max": np.maximum(known["Fwd Packet Length Max"], known["Bwd Packet Length Max"]),
        "Packet Length Min": np.minimum(known["Fwd Packet Length Min"], known["Bwd Packet Length Min"]),
        "Packet Length Mean": mean,
        "Packet Length Std": spread,
        "Packet Length Variance": spread**2,
        "Average Packet Size": mean,
        "Down/Up Ratio": received / sent,
        "SYN Flag Count": np.where(kind.udp, 0.0, np.where((received > 0) & ~reset, 2.0, 1.0)),
        "FIN Flag Count": ended,
        "RST Flag Count": reset.astype(np.float64),
        "Bwd RST Flags": reset.astype(np.float64),
        "ACK Flag Count": np.zeros(n) if kind.udp else packets - 1,
        "PSH Flag Count": known["Fwd PSH Flags"] + known["Bwd PSH Flags"],
        "FWD Init Win Bytes": np.zeros(n) if kind.udp else rng.choice(kind.window, n).astype(np.float64),
        "Bwd Init Win Bytes": np.where((received > 0) & (not kind.udp) & ~reset, 28_960.0, 0.0),
        "Fwd Act Data Pkts": np.where(bytes_of["Fwd"] > 0, np.maximum(sent - 2, 1.0), 0.0),
        "Fwd Seg Size Min": header,
        "ICMP Code": none,
        "ICMP Type": none,
        "Total TCP Flow Time": np.zeros(n) if kind.udp else duration,
    }
    return known


def _gaps(
    rng: Rng, name: str, duration: Values, packets: Values, unevenness: float, *, total: bool = False
) -> dict[str, Values]:
    """Pauses between ``packets`` packets, the first and last of which lie ``duration`` apart."""
    several = packets > 1
    mean = np.where(several, duration / np.maximum(packets - 1, 1.0), 0.0)
    spread = np.where(packets > 2, mean * unevenness * rng.uniform(0.6, 1.4, len(packets)), 0.0)
    gaps = {
        f"{name} Mean": mean,
        f"{name} Std": spread,
        f"{name} Max": np.minimum(np.round(mean + 2 * spread), duration),
        f"{name} Min": np.where(spread > 0, np.round(mean * rng.uniform(0, 0.5, len(packets))), mean),
    }
    return gaps | ({f"{name} Total": np.where(several, duration, 0.0)} if total else {})


def _per_second(amount: Values, duration: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return amount / (duration / 1e6)


def _written(values: Values) -> list[str]:
    """As CICFlowMeter writes numbers."""
    words = {"inf": "Infinity", "nan": "NaN"}
    return [words.get(text, text) for text in (f"{value:.10g}" for value in values.tolist())]
