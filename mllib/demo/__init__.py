"""Synthetic, labelled logs of a made-up web shop, to try Millrace without logs of one's own.

The shop has a daily and a weekly rhythm, deploys that change the wording of messages, response times that creep up
over the weeks, and incidents of 2 to 20 minutes. About 2 % of the lines belong to the trouble of an incident and carry
label 1. They are made to be found in part: some are slow, some are errors, some are rare messages, some look like any
other line, and there are slow lines, errors and rare messages outside incidents that are harmless.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mllib.demo.columns import HOSTS_PER_SERVICE, KEYS, SERVICES, Columns
from mllib.demo.drift import Drift, drifted, flips, write_corrections
from mllib.demo.shop import BACKGROUND, FLOWS, INCIDENTS, LINES
from mllib.errors import BadInput

Rng = np.random.Generator
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.object_]

ANOMALOUS_SHARE = 0.02
INCIDENTS_PER_DAY = 1.5
DAYS_BETWEEN_DEPLOYS = 2.5
DRIFT = 0.2  # response times end this much higher than they began

WORDS = [
    "anorak",
    "boots",
    "cap",
    "duvet",
    "fleece",
    "gloves",
    "jacket",
    "lamp",
    "poncho",
    "rope",
    "scarf",
    "stove",
    "tent",
]

PARAMETERS: dict[str, Callable[[Rng, int], list[object]]] = {
    "id": lambda rng, n: rng.integers(10_000, 1_000_000, n).tolist(),
    "n": lambda rng, n: rng.integers(1, 400, n).tolist(),
    "digit": lambda rng, n: rng.integers(1, 6, n).tolist(),
    "sku": lambda rng, n: [f"SKU-{number}" for number in rng.integers(1000, 9000, n).tolist()],
    "amount": lambda rng, n: np.round(rng.lognormal(4, 0.7, n), 2).tolist(),
    "ip": lambda rng, n: [f"10.{a}.{b}.{c}" for a, b, c in rng.integers(1, 255, (n, 3)).tolist()],
    "word": lambda rng, n: [WORDS[index] for index in rng.integers(0, len(WORDS), n).tolist()],
}


def generate(
    folder: Path,
    *,
    now: datetime | None = None,
    days: int = 28,
    rows: int = 120_000,
    seed: int = 7,
    drift: Drift | None = None,
) -> list[Path]:
    """Write ``rows`` synthetic lines of the ``days`` before ``now``, one gzip file of JSON lines a week.

    The last line comes just before ``now`` floored to the hour (default: the present). The same ``now`` and ``seed``
    give the same bytes. Files appear whole, under names that say they are synthetic; they are returned oldest first.
    With ``drift`` the shop changes on the way, and some weeks are labelled wrongly; ``corrections.csv`` in the folder
    then holds the true labels of these rows, in the form of ``millrace label``.
    Raises BadInput for less than a day, fewer than 1,000 rows, or a naive ``now``.
    """
    if days < 1 or rows < 1000:
        raise BadInput(f"The demo data need at least 1 day and 1,000 rows, got {days} and {rows}.")
    moment = now or datetime.now(UTC)
    if moment.tzinfo is None:
        raise BadInput(f"The end of the demo data needs a time zone, got {moment.isoformat()}.")
    end = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=days)
    rng = np.random.default_rng(seed)

    minutes = _rhythm(start, days)
    deploys, first_deploy = _deploys(rng, days)
    incidents = _incidents(rng, days, rows)
    requests = _requests(rng, minutes, int(0.85 * (rows - len(deploys) - len(incidents))))
    background = _background(rng, minutes, rows - len(deploys) - len(incidents) - len(requests))
    columns = _concatenated([requests, background, deploys, incidents], seconds_in_all=days * 86_400.0)
    names = np.array(SERVICES, dtype=object)[columns.service]
    wrong = np.zeros(len(columns), dtype=np.bool_)
    if drift is not None:
        names = drifted(rng, columns, drift)
        wrong = flips(rng, columns, drift)
        columns.label = np.where(wrong, 1 - columns.label, columns.label)

    lines = _rendered(rng, columns, names, start, days, minutes, first_deploy)
    week = np.searchsorted(columns.seconds, np.arange(7, days + 7, 7) * 86_400.0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    corrections: list[tuple[str, str, int]] = []
    for number, (lower, upper) in enumerate(zip([0, *week[:-1].tolist()], week.tolist(), strict=True), start=1):
        path = folder / f"demo-synthetic-week{number}.jsonl.gz"
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(gzip.compress("".join(lines[lower:upper]).encode(), compresslevel=3, mtime=0))
        part.replace(path)
        paths.append(path)
        right = [
            (f"demo-{row + 1:07d}", 1 - int(columns.label[row])) for row in np.flatnonzero(wrong[lower:upper]) + lower
        ]
        corrections.extend((path.name.partition(".")[0], *correction) for correction in right)
    if drift is not None:
        write_corrections(folder / "corrections.csv", corrections)
    return paths


def _rhythm(start: datetime, days: int) -> Floats:
    """The traffic of each minute relative to the mean: quiet nights, busy evenings, busier weekends."""
    minute = np.arange(days * 1440) + start.hour * 60
    hour = minute / 60 % 24
    weekday = (start.weekday() + minute // 1440) % 7
    daily = 1.0 + 0.55 * np.sin((hour - 9) / 24 * 2 * np.pi) + 0.25 * np.exp(-(((hour - 20) / 2) ** 2))
    weight: Floats = daily * np.where(weekday >= 5, 1.25, 1.0)
    weight /= weight.mean()
    return weight


def _times(rng: Rng, minutes: Floats, n: int) -> Floats:
    picked = rng.choice(len(minutes), size=n, p=minutes / minutes.sum())
    seconds: Floats = picked * 60.0 + rng.uniform(0, 60, n)
    return seconds


def _columns(rng: Rng, kind: Ints, seconds: Floats, trace: Ints) -> Columns:
    n = len(kind)
    service_of = np.array([SERVICES.index(LINES[key].service) if LINES[key].service else -1 for key in KEYS])
    zeros = np.zeros(n, dtype=np.int64)
    hosts = rng.integers(0, HOSTS_PER_SERVICE, n)
    return Columns(kind, seconds, trace, hosts, np.ones(n), zeros, service_of[kind], zeros.copy())


def _requests(rng: Rng, minutes: Floats, n_lines: int) -> Columns:
    """Requests whose lines number at most ``n_lines`` together."""
    flows = [np.array([KEYS.index(key) for key in flow]) for flow in FLOWS]
    weight = np.array(list(FLOWS.values()))
    flow = rng.choice(len(flows), size=n_lines, p=weight / weight.sum())
    length = np.array([len(steps) for steps in flows])[flow]
    flow = flow[np.cumsum(length) <= n_lines]
    length = length[: len(flow)]
    request = np.repeat(np.arange(len(flow)), length)
    step = np.arange(len(request)) - np.repeat(np.cumsum(length) - length, length)
    padded = np.array([np.pad(steps, (0, 8 - len(steps))) for steps in flows])
    seconds = _times(rng, minutes, len(flow))[request] + step * 0.03 + rng.uniform(0, 0.02, len(request))
    return _columns(rng, padded[flow[request], step], seconds, request)


def _background(rng: Rng, minutes: Floats, n: int) -> Columns:
    kinds = np.array([KEYS.index(key) for key in BACKGROUND])
    weight = np.array(list(BACKGROUND.values()))
    kind = rng.choice(kinds, size=n, p=weight / weight.sum())
    return _columns(rng, kind, _times(rng, minutes, n), np.full(n, -1))


def _deploys(rng: Rng, days: int) -> tuple[Columns, dict[int, float]]:
    """The lines of all deploys, and when each service was deployed first, in seconds."""
    moments = (np.arange(days / DAYS_BETWEEN_DEPLOYS) + rng.uniform(0.2, 0.8)) * DAYS_BETWEEN_DEPLOYS * 86_400
    moments = moments[moments < (days - 0.1) * 86_400]
    order = rng.permutation(len(SERVICES))
    service = order[np.arange(len(moments)) % len(SERVICES)]
    version = 1 + np.arange(len(moments)) // len(SERVICES)
    steps = [(KEYS.index(key), host) for host in range(HOSTS_PER_SERVICE) for key in ("stop", "notready", "start")]
    n = len(steps)
    kind = np.tile([key for key, _ in steps], len(moments))
    seconds = np.repeat(moments, n) + np.tile(np.arange(n) * 7.0, len(moments)) + rng.uniform(0, 3, len(kind))
    columns = _columns(rng, kind, seconds, np.full(len(kind), -1))
    columns.host = np.tile([host for _, host in steps], len(moments))
    columns.service, columns.version = np.repeat(service, n), np.repeat(version, n)
    first: dict[int, float] = {}
    for index, moment in zip(service.tolist(), moments.tolist(), strict=True):
        first.setdefault(index, moment)
    return columns, first


def _incidents(rng: Rng, days: int, rows: int) -> Columns:
    """The lines that incidents add: one incident in each equal slot of the time, so that every week has its share."""
    in_trouble = int(rows * ANOMALOUS_SHARE * 1.15)  # some of the lines of an incident are harmless
    count = max(min(int(days * INCIDENTS_PER_DAY), in_trouble // 15), 1)
    length = rng.triangular(2, 5, 20, count) * 60
    slot = days * 86_400 / count
    begin = np.arange(count) * slot + rng.uniform(0, 1, count) * (slot - length).clip(0)
    size = rng.lognormal(0, 0.5, count) * length**0.5
    owner = np.sort(rng.choice(count, size=in_trouble, p=size / size.sum()))
    catalogue = list(INCIDENTS.values())
    rounds = -(-count // len(catalogue))
    sort = np.concatenate([rng.permutation(len(catalogue)) for _ in range(rounds)])[:count]

    kind, slowdown, label = np.zeros((3, in_trouble))
    for index, incident in enumerate(catalogue):
        mine = np.flatnonzero(sort[owner] == index)
        weight = np.array([line[1] for line in incident.lines])
        picked = rng.choice(len(weight), size=len(mine), p=weight / weight.sum())
        kind[mine] = np.array([KEYS.index(line[0]) for line in incident.lines])[picked]
        slowdown[mine] = np.array([line[2] for line in incident.lines])[picked]
        label[mine] = np.array([line[3] for line in incident.lines])[picked]
    seconds = begin[owner] + rng.uniform(0, 1, in_trouble) * length[owner]
    trace = 10_000_000 + owner * 10_000 + rng.integers(0, 1 + in_trouble // count, in_trouble)
    columns = _columns(rng, kind.astype(np.int64), seconds, trace)
    columns.slowdown, columns.label = slowdown, label.astype(np.int64)
    one_host = np.array([incident.one_host for incident in catalogue])[sort[owner]]
    columns.host = np.where(one_host, owner % HOSTS_PER_SERVICE, columns.host)
    return columns


def _concatenated(parts: Sequence[Columns], *, seconds_in_all: float) -> Columns:
    """All parts in the order of time; a request that began in the last moment does not run past the end."""
    names = Columns.__slots__
    columns = Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    columns.seconds = np.minimum(columns.seconds, seconds_in_all - 0.001)
    order = np.argsort(columns.seconds, kind="stable")
    return Columns(*(getattr(columns, name)[order] for name in names))


def _rendered(
    rng: Rng,
    columns: Columns,
    names: Names,
    start: datetime,
    days: int,
    minutes: Floats,
    first_deploy: dict[int, float],
) -> list[str]:
    """Each line as one line of JSON."""
    n = len(columns)
    median = np.array([line.ms for line in LINES.values()])[columns.kind]
    sigma = np.array([line.sigma for line in LINES.values()])[columns.kind]
    drift = 1 + DRIFT * columns.seconds / (days * 86_400)
    load = 0.85 + 0.15 * minutes[(columns.seconds // 60).astype(np.int64)]
    ms = np.round(median * columns.slowdown * np.exp(sigma * rng.standard_normal(n)) * drift * load, 1)
    messages = _messages(rng, columns, ms, first_deploy)

    began = np.datetime64(start.replace(tzinfo=None), "ms")
    stamps = np.datetime_as_string(began + (columns.seconds * 1000).astype("timedelta64[ms]"), unit="ms").tolist()
    secret = rng.integers(0, 2**63)
    hashed = (columns.trace.astype(np.uint64) + np.uint64(secret)) * np.uint64(0x9E3779B97F4A7C15)
    traces = [
        f'"{value:016x}"' if asked else "null" for value, asked in zip(hashed.tolist(), columns.trace >= 0, strict=True)
    ]
    times = [f"{value:g}" if value else "null" for value in ms.tolist()]
    levels = [LINES[KEYS[kind]].level for kind in columns.kind.tolist()]
    status = [json.dumps(LINES[key].status) for key in KEYS]
    return [
        f'{{"ts": "{stamps[i]}Z", "id": "demo-{i + 1:07d}", "service": "{service}", '
        f'"host": "{service}-{host + 1}", "level": "{levels[i]}", "message": "{messages[i]}", '
        f'"response_time_ms": {times[i]}, "status_code": {status[kind]}, "trace_id": {traces[i]}, "label": {label}}}\n'
        for i, (service, host, kind, label) in enumerate(
            zip(*(array.tolist() for array in (names, columns.host, columns.kind, columns.label)), strict=True)
        )
    ]


def _messages(rng: Rng, columns: Columns, ms: Floats, first_deploy: dict[int, float]) -> list[str]:
    """The text of each line. No template or parameter holds a character that JSON would escape."""
    deployed = np.array([first_deploy.get(service, np.inf) for service in range(len(SERVICES))])
    is_new = columns.seconds >= deployed[columns.service]
    messages = np.empty(len(columns), dtype=object)
    for kind, line in enumerate(LINES.values()):
        for text, chosen in ((line.text, ~is_new), (line.reworded or line.text, is_new)):
            mine = np.flatnonzero((columns.kind == kind) & chosen)
            values: list[list[object]] = []
            for name in re.findall(r"\{(\w+)\}", text):
                if name == "ms":
                    values.append([round(value) for value in ms[mine].tolist()])
                elif name == "version":
                    values.append([f"2.{minor}.0" for minor in columns.version[mine].tolist()])
                else:
                    values.append(PARAMETERS[name](rng, len(mine)))
            form = re.sub(r"\{\w+\}", "%s", text)
            messages[mine] = [form % row for row in zip(*values, strict=True)] if values else text
    rendered: list[str] = messages.tolist()
    return rendered
