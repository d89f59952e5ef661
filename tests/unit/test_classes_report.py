"""The report of a verdict on models that tell classes apart: which class is taken for which, whatever the names are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mllib.gate.class_metrics import class_metrics
from mllib.gate.promotion import decide
from mllib.gate.segments import Dimension
from mllib.report import measures, page
from mllib.report.contents import Classes, Example, ExampleGroup, Judgement, Rows
from mllib.types import Policy
from tests.unit.test_classes_gate import NAMES, make_evidence, make_rows
from tests.unit.test_report_html import HOSTILE, Elements, text


def render(*, first: bool = False, hostile: bool = False) -> str:
    truth, new, old, codes = make_rows(3, clusters=800, accuracy=(0.9, 0.7))
    evidence = make_evidence(truth, new, None if first else old, codes, segments=not first)
    decision = decide(evidence, Policy.STRICT)
    judgement = Judgement(
        detector="log_severity",
        version=8,
        champion_version=None if first else 7,
        evidence=evidence,
        decision=decision,
        reason=decision.reason,
        as_of=datetime(2026, 3, 1, tzinfo=UTC),
        decided_by="test",
        holdout_looks=1,
    )
    if hostile:
        names = (HOSTILE, *NAMES[1:])
        measured = [replace(class_metrics(truth, said, names), alert_rate=0.1) for said in (new, old)]
        judgement = replace(judgement, evidence=replace(evidence, candidate=measured[0], champion=measured[1]))
    rows = Rows(
        ts_us=np.arange(truth.size),
        log_ids=np.arange(truth.size),
        positive=np.zeros(truth.size, dtype=np.bool_),
        clusters=codes,
        dimensions={"service": Dimension(codes=np.zeros(truth.size, dtype=np.int64), names=("shop",))},
        scores=(np.zeros(truth.size),) * (1 if first else 2),
        thresholds=(0.5,) * (1 if first else 2),
        classes=Classes(names=NAMES, truth=truth, predicted=(new,) if first else (new, old)),
    )
    example = Example(
        ts=datetime(2026, 2, 28, tzinfo=UTC),
        parts={"service": "shop", "level": None},
        message="a line",
        scores=(0.1,) if first else (0.1, 0.1),
        positive=False,
        truth=HOSTILE if hostile else "WARN",
        said=("INFO",) if first else ("INFO", "WARN"),
    )
    group = ExampleGroup(title="Put right by the candidate", meaning="-", total=1, examples=(example,))
    return page.render(judgement, rows, label_counts={}, rows_per_day=500.0, versions=(), examples=(group,))


@pytest.mark.parametrize("first", [True, False])
def test_the_page_shows_the_matrix_and_f1_by_class_and_no_curve(first: bool) -> None:
    content = render(first=first)
    truth, new, _, _ = make_rows(3, clusters=800, accuracy=(0.9, 0.7))
    shown = text(content)
    assert "Which class is taken for which" in shown
    assert "Macro-F1 is higher" in shown
    assert "Precision and recall at every threshold" not in shown
    assert "curve" not in {
        attrs.get("class", "").split(" ")[0] for _, attrs in Elements(content).found if attrs.get("class")
    }
    for figures in class_metrics(truth, new, NAMES).classes:
        assert f"{figures.hits:,}" in shown
        assert figures.name in shown
    assert ("The most frequent class" in shown) is first


def test_names_of_classes_are_as_untrusted_as_any_text() -> None:
    content = render(hostile=True)
    names = {name for name, _ in Elements(content).found}
    assert not names & {"script", "img"}
    assert "alert(1)" in text(content)
    assert "\u202e" not in content
    assert "\x00" not in content


def test_rare_classes_beyond_twenty_are_left_out_and_counted() -> None:
    truth = np.repeat(np.arange(23), np.arange(23, 0, -1))
    found = measures.class_confusion(class_metrics(truth, truth, [f"c{n}" for n in range(23)]))
    assert (len(found.names), found.left_out) == (20, 3)
    assert found.names[0] == "c0"
    assert [row[at] for at, row in enumerate(found.counts)] == list(range(23, 3, -1))
