"""What a CI/CD run is judged by, out of its log and what else is known of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from mllib.sources import PIPELINE_FEATURES

MAX_HOSTS = 100
"""Hosts that are kept of a run."""
MAX_HOST = 253
"""Characters of a host's name."""
MAX_EVIDENCE = 32_768
"""Bytes of all excerpts together, as JSON."""
MAX_PRIVILEGES = 50
"""Ways of changing rights that are kept of a run."""


class PipelineMeta(NamedTuple):
    """What is known of a run beside its log."""

    provider: str | None = None
    repository: str | None = None
    branch: str | None = None
    workflow: str | None = None
    language: str | None = None
    duration_s: float | None = None


class PipelineFeatures(NamedTuple):
    """A run in numbers, None where one is not known; with what they were counted from."""

    values: Mapping[str, float | None]
    """By the names of PIPELINE_FEATURES; finite and not negative."""
    hosts: tuple[str, ...] = ()
    """Different network hosts, at most MAX_HOSTS."""
    evidence: Mapping[str, object] | None = None
    """Short excerpts of the log by kind of security issue, at most MAX_EVIDENCE bytes as JSON."""
    provider: str | None = None
    """Whose log it is, where one was read: ``github_actions``, ``travis``, or None for any other."""
    repository: str | None = None
    """``owner/name``, where a log says so."""

    def numbers(self) -> tuple[float | None, ...]:
        """The values in the order of PIPELINE_FEATURES."""
        return tuple(self.values.get(name) for name in PIPELINE_FEATURES)


def pipeline_features(text: str, meta: PipelineMeta | None = None) -> PipelineFeatures:
    """The features of a run out of the raw text of its log, with its escape sequences or without.

    Logs of GitHub Actions (a time before each line, ``##[group]``, ``##[error]``, ``[command]``), of Travis
    (``travis_fold``, ``travis_time``), and any other as plain lines with prompts. ``meta.duration_s`` (seconds) counts
    where it is given, otherwise the times in the log; nothing else of ``meta`` is looked at. Any text is read, in time
    linear in its length and with memory of its own for 4 MiB of it.

    ``hosts`` are those that the run spoke to, the closest contact first. ``evidence`` has, for each kind of issue,
    ``[{"line": 1, "excerpt": "..."}]`` with secrets masked; ``privileges``, what rights were changed with; and
    ``contacts``, for each host how it was met and how often: also those that are only mentioned.

    Limits: the numbers count wordings, so that a log that prints a script counts as if it had run it, a command that
    GitHub shows as the name of its step counts twice, and one that is not printed does not count. A secret counts once,
    however often it is shown. Closing lines that tell the outcome are lines like others: where the outcome is to be
    predicted, they must be taken out before.
    """
    from mllib.features._pipeline_reading import CONTACTS, read
    from mllib.features._pipeline_secrets import excerpt

    reading = read(text)
    counts = reading.counts
    times: Counter[str] = Counter()
    closest: dict[str, str] = {}
    for contact in CONTACTS:
        for host in sorted(reading.hosts[contact]):
            closest.setdefault(host, contact)
            times[host] += reading.hosts[contact][host]
    hosts = [host for host, contact in closest.items() if contact != CONTACTS[-1]]
    given = meta.duration_s if meta is not None else None
    values: dict[str, float | None] = {name: float(counts[name]) for name in PIPELINE_FEATURES}
    values.update(
        duration_s=reading.duration_s() if given is None else given,
        step_count=float(counts["steps"] or counts["folds"] or len(reading.commands)),
        distinct_commands=float(len(reading.commands)),
        distinct_network_hosts=float(len(hosts)),
        secret_like_tokens=float(len(reading.secrets)),
        # One is a command and what it prints, and a log may show either.
        environment_dumps=float(max(counts["dumps_ordered"], counts["dumps_printed"])),
        image_pulls=float(max(counts["pulls_ordered"], counts["pulls_told"])),
    )
    evidence: dict[str, object] = {
        kind: [{"line": excerpt.line, "excerpt": excerpt.text} for excerpt in reading.excerpts[kind]]
        for kind in sorted(reading.excerpts)
        if reading.excerpts[kind]
    }
    if reading.privileges:
        evidence["privileges"] = sorted({excerpt(stem) for stem in reading.privileges})[:MAX_PRIVILEGES]
    contacts = _that_fit({host: [contact, times[host]] for host, contact in closest.items()}, evidence)
    if contacts:
        evidence["contacts"] = contacts
    return PipelineFeatures(
        values=values,
        hosts=tuple(hosts[:MAX_HOSTS]),
        evidence=evidence or None,
        provider="travis" if counts["travis"] else "github_actions" if counts["github"] else None,
        repository=reading.repository,
    )


def _that_fit(contacts: Mapping[str, list[object]], evidence: Mapping[str, object]) -> dict[str, list[object]]:
    """The first hosts with their contacts for which the evidence has room."""
    room = MAX_EVIDENCE - len(json.dumps(evidence)) - len(', "contacts": {}')
    kept = {}
    for host, contact in contacts.items():
        room -= len(json.dumps({host: contact}))
        if room < 0:
            break
        kept[host] = contact
    return kept
