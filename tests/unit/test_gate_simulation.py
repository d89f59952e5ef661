"""The gate on candidates whose worth is known, with lines in bursts: a small sibling of ``make bench ARGS=gate``."""

from __future__ import annotations

import numpy as np
import pytest

from mllib.gate.evaluation import binary_metrics, flag_everything_f1, paired_cluster_bootstrap
from mllib.gate.promotion import Evidence, decide
from mllib.types import Policy, Verdict

BURST, ANOMALOUS, NORMAL = 20, 25, 300
CHAMPION_RECALL, FALSE_ALARMS = 0.8, 0.017


def promoted(recall: float, *, trials: int, by_line: bool = False) -> tuple[float, float]:
    """Share of trials in which strict and evidence promote a candidate that finds so many of the bursts."""
    rng = np.random.default_rng(7)
    truth = np.arange(ANOMALOUS + NORMAL) < ANOMALOUS
    of_line = np.repeat(np.arange(truth.size), BURST)
    labels = truth[of_line]
    verdicts = []
    for seed in range(trials):
        new, old = (
            (rng.random(truth.size) < np.where(truth, chance, FALSE_ALARMS))[of_line]
            for chance in (recall, CHAMPION_RECALL)
        )
        clusters = np.arange(labels.size) if by_line else of_line
        measured = binary_metrics(labels, new), binary_metrics(labels, old)
        evidence = Evidence(
            first=False,
            candidate=measured[0],
            champion=measured[1],
            bootstrap=paired_cluster_bootstrap(labels, new, old, clusters, resamples=500, seed=seed),
            holdout_rows=labels.size,
            holdout_positives=int(labels.sum()),
            holdout_hash="",
            excluded_rows=0,
            flag_everything_f1=flag_everything_f1(labels.size, int(labels.sum())),
        )
        decision = decide(evidence, Policy.STRICT)
        verdicts.append((decision.verdict is Verdict.PROMOTE, decision.other_verdict is Verdict.PROMOTE))
    strict, sure = np.mean(verdicts, axis=0)
    return float(strict), float(sure)


@pytest.mark.parametrize(("recall", "by_chance"), [(0.7, 0.02), (0.8, 0.08)], ids=["worse", "equal"])
def test_evidence_promotes_hardly_any_candidate_that_is_no_better(recall: float, by_chance: float) -> None:
    strict, sure = promoted(recall, trials=250)
    assert sure <= by_chance < strict


def test_evidence_promotes_a_much_better_candidate() -> None:
    strict, sure = promoted(1.0, trials=60)
    assert strict >= 0.9
    assert sure >= 0.4


def test_drawing_lines_instead_of_bursts_would_promote_far_too_many() -> None:
    """What the test of equal candidates guards against: the same trials, each line taken for a burst of its own."""
    assert promoted(0.8, trials=60, by_line=True)[1] > 0.2
