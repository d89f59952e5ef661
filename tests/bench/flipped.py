"""What the gate can still tell when labels of the holdout itself are flipped, on models whose true worth is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mllib.gate.evaluation import binary_metrics, bootstrap_counts, flag_everything_f1
from mllib.gate.evidence import Evidence
from mllib.gate.paired_counts import Bools, Ints, count_clusters
from mllib.gate.promotion import decide
from mllib.gate.segments import Dimension, compare_segments
from mllib.types import Policy, Verdict
from tests.bench.common import table

BURSTS_ANOMALOUS, BURSTS_NORMAL, BURST = 60, 2_940, 5  # 300 anomalies in 15,000 lines
SERVICES = 5
CHAMPION = (0.80, 0.0041)
"""Chance of an alarm in an anomalous and in a normal burst: F1 .80."""
CANDIDATES = {
    "slightly worse": (0.75, 0.0051),
    "noisy": (0.90, 0.0408),
    "flags everything": (1.0, 1.0),
    "better": (0.92, 0.0016),
}
SHARES = (0.0, 0.05, 0.10, 0.20, 0.50, 1.0)
TRIALS = 60


def run() -> None:
    """Prints how often each candidate is promoted, and what stops it, by share and place of the flipped labels."""
    rows = []
    for place in ("anywhere", "one service"):
        for share in SHARES:
            if place == "one service" and not share:
                continue
            for name, chances in CANDIDATES.items():
                generator = np.random.default_rng(20_260_102)
                trials = [_judge(generator, chances, share, place, seed) for seed in range(TRIALS)]
                seen: Counter[str] = sum(trials, Counter())
                rows.append(
                    {
                        "flipped": f"{share:.0%} {place}" if share else "none",
                        "candidate": name,
                        "true F1": seen["true F1"] / TRIALS,
                        "higher F1 by these labels": f"{seen['f1'] / TRIALS:.0%}",
                        "stopped by share of labels": f"{seen['usual_labels'] / TRIALS:.0%}",
                        "stopped by alert rate": f"{seen['alert_rate'] / TRIALS:.0%}",
                        "stopped by slices": f"{seen['slices'] / TRIALS:.0%}",
                        "promoted": f"{seen['strict'] / TRIALS:.0%} / {seen['evidence'] / TRIALS:.0%}",
                        "promoted, training flipped alike": (
                            f"{seen['strict, alike'] / TRIALS:.0%} / {seen['evidence, alike'] / TRIALS:.0%}"
                        ),
                    }
                )
    table(
        f"Labels of the holdout flipped; champion's true F1 .80, promoted by strict / evidence, {TRIALS} trials each:",
        rows,
    )


def _judge(
    generator: np.random.Generator, chances: tuple[float, float], share: float, place: str, seed: int
) -> Counter[str]:
    """Of one trial: the candidate's true F1; whether its F1 is higher by the flipped labels, which of three gates
    would stop it then, and whether the policies promote it."""
    truth = np.arange(BURSTS_ANOMALOUS + BURSTS_NORMAL) < BURSTS_ANOMALOUS
    service = generator.integers(0, SERVICES, truth.size)
    new, old = (_flags(generator, truth, of_model) for of_model in (chances, CHAMPION))
    clusters = np.repeat(np.arange(truth.size), BURST)
    truth, service, new, old = (np.repeat(of_burst, BURST) for of_burst in (truth, service, new, old))
    flipped = generator.random(truth.size) < share
    if place == "one service":
        flipped &= service == 0
    evidence = _evidence(truth ^ flipped, new, old, clusters, service, seed)
    decision = decide(evidence, Policy.STRICT)
    # Where the labels of training are flipped alike, the share of anomalies does not change.
    alike = decide(replace(evidence, anomaly_ratio=1.0), Policy.STRICT)
    passed = {gate.name: gate.passed for gate in decision.gates}
    return Counter(
        {
            "true F1": binary_metrics(truth, new).f1,  # type: ignore[dict-item]
            "f1": int(passed["f1"]),
            "alert_rate": int(passed["f1"] and not passed["alert_rate"]),
            "usual_labels": int(passed["f1"] and not passed["usual_labels"]),
            "slices": int(passed["f1"] and not passed["slices"]),
            "strict": int(decision.verdict is Verdict.PROMOTE),
            "evidence": int(decision.other_verdict is Verdict.PROMOTE),
            "strict, alike": int(alike.verdict is Verdict.PROMOTE),
            "evidence, alike": int(alike.other_verdict is Verdict.PROMOTE),
        }
    )


def _flags(generator: np.random.Generator, truth: Bools, chances: tuple[float, float]) -> Bools:
    return np.asarray(generator.random(truth.size) < np.where(truth, *chances))


def _evidence(labels: Bools, new: Bools, old: Bools, clusters: Ints, service: Ints, seed: int) -> Evidence:
    positives = int(labels.sum())
    services = {"service": Dimension(codes=service, names=tuple(f"service {n}" for n in range(SERVICES)))}
    return Evidence(
        first=False,
        candidate=binary_metrics(labels, new),
        champion=binary_metrics(labels, old),
        bootstrap=bootstrap_counts(count_clusters(labels, new, old, clusters), resamples=500, seed=seed),
        holdout_rows=labels.size,
        holdout_positives=positives,
        holdout_hash="",
        excluded_rows=0,
        flag_everything_f1=flag_everything_f1(labels.size, positives),
        # Against training labels that are right.
        anomaly_ratio=positives / (BURSTS_ANOMALOUS * BURST),
        segments=compare_segments(labels, new, old, clusters, services, resamples=500, seed=seed),
    )
