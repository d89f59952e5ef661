"""The page of a report: whatever the logs hold, it shows it, runs nothing and fetches nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from mllib.gate import evaluation, promotion
from mllib.gate.paired_counts import count_clusters
from mllib.gate.segments import Dimension, compare_segments
from mllib.report import page, words
from mllib.report.contents import Example, ExampleGroup, Judgement, Rows, Version
from mllib.types import Policy, Verdict

HOSTILE = (
    "</code><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)> {{ 7 * 7 }} \u202efdp.exe\x00"
)
COUNTS = {"train": {"rows": 9, "labelled": 8, "positives": 7}, "holdout": {"rows": 2000, "labelled": 6, "positives": 5}}


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def make_rows(quality: tuple[float, ...], *, count: int = 2_000, service: str = "shop") -> Rows:
    """Rows of which a tenth are anomalies, and one model for each share of rows that it gets right."""
    rng = np.random.default_rng(5)
    positive = rng.random(count) < 0.1
    scores = tuple(np.where(rng.random(count) < share, positive, ~positive) * 0.5 + 0.25 for share in quality)
    return Rows(
        ts_us=np.arange(count, dtype=np.int64),
        log_ids=np.arange(count, dtype=np.int64),
        positive=positive,
        clusters=np.arange(count, dtype=np.int64) // 10,
        dimensions={"service": Dimension(codes=np.zeros(count, dtype=np.int64), names=(service,))},
        scores=scores,
        thresholds=(0.5,) * len(scores),
    )


def make_judgement(rows: Rows, *, policy: Policy = Policy.STRICT, **changes: Any) -> Judgement:
    """The verdict that the gate gives on these rows."""
    measured = [
        evaluation.binary_metrics(rows.positive, rows.flags(number), scores)
        for number, scores in enumerate(rows.scores)
    ]
    bootstrap, segments = None, ()
    if len(measured) > 1 and rows.positive.size:
        pair = rows.flags(0), rows.flags(1)
        bootstrap = evaluation.bootstrap_counts(count_clusters(rows.positive, *pair, rows.clusters))
        segments = compare_segments(rows.positive, *pair, rows.clusters, rows.dimensions)
    evidence = promotion.Evidence(
        first=len(measured) < 2,
        candidate=measured[0] if measured else None,
        champion=measured[1] if len(measured) > 1 else None,
        bootstrap=bootstrap,
        holdout_rows=rows.positive.size,
        holdout_positives=int(rows.positive.sum()),
        holdout_hash="abc123",
        excluded_rows=17,
        flag_everything_f1=0.18,
        rule_f1={"status_code >= 500": 0.4321},
        segments=segments,
    )
    evidence = replace(evidence, **changes)
    decision = promotion.decide(evidence, policy)
    return Judgement(
        detector="log_anomaly",
        version=8,
        champion_version=None if evidence.first else 7,
        evidence=evidence,
        decision=decision,
        reason=decision.reason,
        as_of=datetime(2026, 3, 1, tzinfo=UTC),
        decided_by="test",
        holdout_looks=2,
    )


def render(judgement: Judgement, rows: Rows, message: str = "a message") -> str:
    example = Example(
        ts=datetime(2026, 2, 28, 12, tzinfo=UTC),
        parts={"service": message, "level": message},
        message=message,
        scores=(0.71, 0.42)[: len(rows.scores)],
        positive=True,
    )
    group = ExampleGroup(title="Found only by the candidate", meaning="-", total=1, examples=(example,))
    return page.render(
        judgement,
        rows,
        label_counts=COUNTS,
        rows_per_day=500.0,
        versions=(Version(role="Candidate", version=8, facts={"Estimator": message}),),
        examples=(group,) if rows.scores else (),
    )


def text(content: str) -> str:
    return " ".join(Elements(content).text.split())


def test_hostile_text_is_shown_and_does_nothing() -> None:
    rows = make_rows((0.95, 0.8), service=HOSTILE)
    content = render(replace(make_judgement(rows), decided_by=HOSTILE, reason=HOSTILE), rows, HOSTILE)

    assert not {"script", "img", "iframe", "object", "link", "form"} & {tag for tag, _ in Elements(content).found}
    assert "{{ 7 * 7 }}" in text(content)
    assert "<script>alert(1)</script>" in text(content)
    # What turns the direction of writing, or ends a string, is seen and not obeyed.
    assert "\\u202efdp.exe" in text(content)
    assert not re.search("[\u202e\x00]", content)


@pytest.mark.parametrize("models", [(0.95, 0.8), (0.95,), ()], ids=["two", "first", "unusable"])
def test_the_page_needs_nothing_and_runs_nothing(models: tuple[float, ...]) -> None:
    rows = make_rows(models)
    content = render(make_judgement(rows, **({} if models else {"first": False})), rows)

    for tag, attributes in Elements(content).found:
        assert tag != "script"
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "href", "style")]
    assert "@import" not in content
    assert "url(" not in content
    assert "http://" not in content
    assert "https://" not in content
    assert "default-src 'none'" in content


def test_a_promotion_begins_with_what_happened_and_what_to_do() -> None:
    rows = make_rows((0.95, 0.8))
    content = text(render(make_judgement(rows), rows))

    order = [
        "Version 8 replaces version 7 as champion of log_anomaly",
        "What to do next",
        "millrace rollback log_anomaly --reason TEXT",
        "Side by side",
        "Precision and recall at every threshold",
        "Right and wrong",
        "F1 by service",
        "Where the two disagree",
        "Example rows",
        "What it was measured on",
        "The gates, one by one",
        "Where the models come from",
    ]
    places = [content.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)
    assert "17 labelled rows of the holdout were left out" in content


def test_the_figures_of_both_models_stand_side_by_side() -> None:
    rows = make_rows((0.95, 0.8))
    judgement = make_judgement(rows)
    content = text(render(judgement, rows))
    new, old = judgement.evidence.candidate, judgement.evidence.champion

    assert new is not None
    assert old is not None
    assert f"{new.f1:.4f} {old.f1:.4f} {new.f1 - old.f1:+.4f}" in content
    assert f"{new.precision:.1%} {old.precision:.1%}" in content
    assert f"{new.recall:.1%} {old.recall:.1%}" in content
    assert new.alert_rate is not None
    assert f"{new.alert_rate:.2%}" in content
    assert f"{new.alert_rate * 500:,.0f}" in content
    assert content.count("Version 7") <= 1


def test_both_curves_and_their_thresholds_are_drawn() -> None:
    rows = make_rows((0.95, 0.8))
    elements = Elements(render(make_judgement(rows), rows)).found

    assert [a["class"] for tag, a in elements if tag == "path"] == ["curve champion", "curve candidate"]
    big = [a for tag, a in elements if tag == "circle" and float(a["r"] or 0) > 5]
    assert [a["class"] for a in big] == ["dot champion", "dot candidate"]


def test_a_first_champion_is_shown_beside_the_rules_of_thumb() -> None:
    rows = make_rows((0.95,))
    content = text(render(make_judgement(rows), rows))

    assert "Version 8 is the first champion of log_anomaly" in content
    assert "Flagging every row" in content
    assert "status_code >= 500: 0.4321" in content
    assert "Where the two disagree" not in content
    assert "millrace rollback" not in content


def test_a_refusal_names_the_gate_that_was_not_passed() -> None:
    rows = make_rows((0.8, 0.95))
    judgement = make_judgement(rows)
    content = render(judgement, rows)

    assert judgement.decision.verdict is Verdict.REFUSE
    assert "Version 8 of log_anomaly was refused. Version 7 stays champion." in text(content)
    broken = re.findall(r'<li class="broken">.*?<strong>(.*?)</strong>', content, re.DOTALL)
    assert "F1 is higher" in broken


def test_a_candidate_that_cannot_be_measured_has_a_page_with_its_gates() -> None:
    rows = make_rows(())
    judgement = make_judgement(rows, first=False, defects=("the stored bytes are not those on record",))
    content = text(render(judgement, rows))

    assert judgement.decision.verdict is Verdict.REFUSE
    assert "it could not be measured" in content
    assert "the stored bytes are not those on record" in content
    assert "Side by side" not in content


@pytest.mark.parametrize("anomalies", [0, 1], ids=["none", "all"])
def test_labels_of_one_kind_or_no_row_at_all_still_make_a_page(anomalies: int) -> None:
    rows = make_rows((0.9, 0.8), count=50)
    one_kind = replace(rows, positive=np.full(50, bool(anomalies)))
    assert "Not enough evidence" in text(render(make_judgement(one_kind), one_kind))
    none = make_rows((0.9, 0.8), count=0)
    content = text(render(make_judgement(none), none))
    assert "There was no labelled row to measure it on." in content


def test_every_gate_has_a_name_for_people() -> None:
    rows = make_rows((0.95, 0.8))
    gates = make_judgement(rows, policy=Policy.EVIDENCE).decision.gates

    assert [gate.name for gate in gates if gate.name not in words.GATES] == []
    assert words.gate_name("a_new_one") == "A new one"


def test_text_is_cut_and_made_visible() -> None:
    assert page.shown(None) == "(none)"
    assert page.shown("a\nb\tc\x1b[0m") == "a\\nb    c\\u001b[0m"
    assert page.shown("x" * 1_000_000, 10) == "x" * 10 + "…"
    assert page.code("run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
