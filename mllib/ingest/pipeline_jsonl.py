"""One CI/CD run a line, as a JSON object.

    {"ts": "2026-01-05T10:00:00Z", "id": "77", "provider": "github_actions", "repository": "shop/web", "log_lines": 812,
     "duration_s": 64, "step_count": 9, ..., "hosts": ["packages.example.org"], "label": "failed"}

It has a time (``ts``, when the run started), and may have ``id``, ``provider``, ``repository``, ``branch``,
``workflow``, ``language`` and ``label``. And either the numeric features of a run, of which those that are missing or
null count as not known, with ``hosts`` and ``evidence`` if there are any; or ``log``, the text of its log, out of which
the features are computed, beside which ``duration_s`` may be given; it also tells ``provider`` and ``repository`` where
the object does not. Whatever else there is goes to ``attributes``. The
label is "0" for ``passed``, ``success`` or 0, otherwise it is kept as it is, and is positive.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, tzinfo

from mllib.features.pipeline import (
    MAX_EVIDENCE,
    MAX_HOST,
    MAX_HOSTS,
    PipelineFeatures,
    PipelineMeta,
    pipeline_features,
)
from mllib.ingest.base import Parse, ParseOptions, Refused, RunRecord
from mllib.ingest.jsonl import Json, json_object
from mllib.ingest.timestamps import from_number, from_text, unreadable
from mllib.sources import PIPELINE_FEATURES

NAME = "pipeline_jsonl"
DESCRIPTION = "CI/CD runs as JSON lines, with their features or the text of their log"
TABLE = "pipeline_runs"
MAX_LINE_BYTES = 16 * 1024 * 1024

_NAMES = ("provider", "repository", "branch", "workflow", "language")
_PASSED = {"passed", "success", "0", "0.0", "false"}


def sniff(lines: list[str]) -> float:
    """Objects with a repository or provider, and features or a log."""
    sure = 0
    for line in lines:
        try:
            run = json_object(line)
        except Refused:
            continue
        named = "repository" in run or "provider" in run
        sure += named and ("log" in run or sum(name in run for name in PIPELINE_FEATURES) > 2)
    return sure / len(lines) if lines else 0.0


def parser(options: ParseOptions) -> Parse:
    def parse(line: str) -> RunRecord:
        rest = json_object(line)
        ts = _moment(rest.pop("ts", None), options.timezone)
        source_id, label = _text(rest, "id"), _text(rest, "label")
        provider, repository, branch, workflow, language = (_text(rest, name) for name in _NAMES)
        meta = PipelineMeta(provider, repository, branch, workflow, language)
        features = _computed(rest, meta) if "log" in rest else _given(rest)
        if label is not None and label.lower() in _PASSED:
            label = "0"
        return RunRecord(
            ts,
            source_id,
            provider or features.provider,
            repository or features.repository,
            branch,
            workflow,
            language,
            features,
            rest or None,
            label,
        )

    return parse


def _computed(rest: Json, meta: PipelineMeta) -> PipelineFeatures:
    text, duration = rest.pop("log"), _number(rest, "duration_s")
    if not isinstance(text, str):
        raise Refused("log is no text")
    also = [name for name in PIPELINE_FEATURES if name in rest]
    if also:
        raise Refused(f"both a log and features that are computed from it: {', '.join(also)}")
    return pipeline_features(text, meta._replace(duration_s=duration))


def _given(rest: Json) -> PipelineFeatures:
    values = {name: _number(rest, name) for name in PIPELINE_FEATURES}
    if all(value is None for value in values.values()):
        raise Refused(f"neither a log nor one of the features {', '.join(PIPELINE_FEATURES)}")
    hosts, evidence = rest.pop("hosts", None) or [], rest.pop("evidence", None) or None
    if not isinstance(hosts, list) or not all(isinstance(host, str) and 0 < len(host) <= MAX_HOST for host in hosts):
        raise Refused(f"hosts is no list of names of at most {MAX_HOST} characters")
    different = tuple(dict.fromkeys(hosts))
    if len(different) > MAX_HOSTS:
        raise Refused(f"{len(different):,} hosts; at most {MAX_HOSTS} are stored")
    if evidence is not None and not isinstance(evidence, dict):
        raise Refused("evidence is no object")
    if evidence is not None and len(json.dumps(evidence)) > MAX_EVIDENCE:
        raise Refused(f"the evidence is longer than {MAX_EVIDENCE:,} bytes")
    return PipelineFeatures(values=values, hosts=different, evidence=evidence)


def _number(rest: Json, name: str) -> float | None:
    value = rest.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{name} is {json.dumps(value)[:40]}, which is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise Refused(f"{name} is {value!r:.40}, which is not finite or below 0")
    return number


def _moment(value: object, zone: tzinfo) -> datetime:
    if isinstance(value, str):
        return from_text(value, zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_number(value)
    if value is None:
        raise Refused("no time stamp under the key ts")
    raise unreadable(value)


def _text(rest: Json, name: str) -> str | None:
    value = rest.pop(name, None)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, dict | list):
        raise Refused(f"{name} is no text")
    return json.dumps(value)
