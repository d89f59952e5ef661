"""How often each policy promotes a candidate whose worth is known: worse, equal or better, in bursts of any length.

Both models flag a burst of lines as a whole or not at all, each by its own recall and false alarms, from which its true
F1 follows. The verdicts are those of the gate itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllib.gate.evaluation import BinaryMetrics, BootstrapDifference, bootstrap_counts, flag_everything_f1, widening
from mllib.gate.paired_counts import Ints, PairedCounts, distinct
from mllib.gate.promotion import Evidence, decide
from mllib.types import Policy, Verdict
from tests.bench import flipped
from tests.bench.common import table

CHAMPION_F1 = 0.80
CANDIDATES = {"worse by .024": -0.024, "worse by .012": -0.012, "equal": 0.0, "better by .024": 0.024}
POSITIVES = (30, 100, 300, 1000)
NORMAL_PER_ANOMALY = 49  # 2 % anomalies
BURSTS = (1, 5, 20, 50)
UNEVEN = None
LONGEST = 200
TRIALS = 300
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Bursts:
    """Bursts that somebody flags or that are anomalies, shape (bursts, 5); the others are normal and silent."""

    counts: Ints
    silent: int
    silent_lines: int

    @property
    def by_burst(self) -> PairedCounts:
        return distinct(self.counts, silent=self.silent)

    @property
    def by_line(self) -> PairedCounts:
        """The same lines as if each were a burst of its own."""
        lines = np.repeat(np.sign(self.counts), self.counts.max(axis=1), axis=0)
        return distinct(lines, silent=self.silent_lines)


def run(_: Path | None) -> None:
    """Prints how often each policy promotes, how often equal candidates would pass two other lower bounds, and the same
    for labels that were flipped."""
    started = time.perf_counter()
    generator = np.random.default_rng(20_260_101)
    rows = []
    for burst in (*BURSTS, UNEVEN):
        for positives in POSITIVES:
            row = {"lines in a burst": str(burst or f"1 to {LONGEST}"), "positives": str(positives)}
            for name, gain in CANDIDATES.items():
                trials = [judge(generator, burst, positives, gain, seed) for seed in range(TRIALS)]
                strict, evidence, plain, by_line = np.mean(trials, axis=0)
                row[name] = f"{strict:.1%} / {evidence:.1%}"
                if not gain:
                    compared = {
                        "equal, plain percentiles": f"{plain:.1%}",
                        "equal, lines drawn": f"{by_line:.1%}",
                    }
            rows.append({**row, **compared})
    title = f"Promoted by strict / by evidence; champion's F1 {CHAMPION_F1:.2f}, 2 % anomalies, {TRIALS} trials each:"
    table(title, rows)
    flipped.run()
    print(f"\n{time.perf_counter() - started:.0f} s")


def judge(
    generator: np.random.Generator, burst: int | None, positives: int, gain: float, seed: int
) -> tuple[bool, bool, bool, bool]:
    """Promoted by strict, by evidence; lower bound above 0 with plain percentiles, and with lines drawn for bursts."""
    bursts = make_bursts(generator, burst, positives, gain)
    counts = bursts.by_burst
    bootstrap = bootstrap_counts(counts, resamples=RESAMPLES, seed=seed)
    decision = decide(make_evidence(counts, bootstrap, positives), Policy.STRICT)
    plain = by_line = False
    if not gain:
        lower = bootstrap_counts(bursts.by_line, resamples=RESAMPLES, seed=seed).lower
        by_line = lower is not None and lower > 0
        if bootstrap.lower is not None and bootstrap.effective_clusters is not None:
            distance = (bootstrap.difference - bootstrap.lower) / widening(bootstrap.effective_clusters)
            plain = bootstrap.difference - distance > 1e-9
    return decision.verdict is Verdict.PROMOTE, decision.other_verdict is Verdict.PROMOTE, plain, by_line


def make_bursts(generator: np.random.Generator, burst: int | None, positives: int, gain: float) -> Bursts:
    """A holdout with so many anomalous lines, in which the models' true F1 are CHAMPION_F1 and that plus ``gain``."""
    anomalous = lengths(generator, burst, positives)
    normal = lengths(generator, burst, positives * NORMAL_PER_ANOMALY)
    counts = []
    for truth, of_burst in ((1, anomalous), (0, normal)):
        new, old = (generator.random(of_burst.size) < chance(truth, f1) for f1 in (CHAMPION_F1 + gain, CHAMPION_F1))
        columns = (new & (truth == 1), new, old & (truth == 1), old, np.full(of_burst.size, truth == 1))
        counts.append(np.stack(columns, axis=1) * of_burst[:, None])
    together = np.concatenate(counts)
    speaking = together.any(axis=1)
    silent_lines = int(np.concatenate([anomalous, normal])[~speaking].sum())
    return Bursts(counts=together[speaking], silent=int((~speaking).sum()), silent_lines=silent_lines)


def chance(truth: int, f1: float) -> float:
    """How likely a model of equal precision and recall flags a burst: its recall, or its share of false alarms."""
    return f1 if truth else (1 - f1) / NORMAL_PER_ANOMALY


def lengths(generator: np.random.Generator, burst: int | None, lines: int) -> Ints:
    """Lengths of bursts that make up so many lines; uneven ones are mostly short, and some very long."""
    if burst is not UNEVEN:
        return np.diff(np.append(np.arange(0, lines, burst), lines))
    drawn = np.minimum(np.ceil(generator.lognormal(1.5, 1.2, size=lines // 3 + 100)), LONGEST).astype(np.int64)
    ends = drawn.cumsum()
    kept = int(np.searchsorted(ends, lines))
    return np.append(drawn[:kept], lines - (ends[kept - 1] if kept else 0))


def make_evidence(counts: PairedCounts, bootstrap: BootstrapDifference, positives: int) -> Evidence:
    """What the gate is told of these counts; no segments, for all lines are of one kind."""
    rows = positives * (NORMAL_PER_ANOMALY + 1)
    new_hits, new_alarms, old_hits, old_alarms, _ = counts.totals.tolist()
    candidate, champion = (
        BinaryMetrics(
            rows=rows,
            positives=positives,
            alarms=alarms,
            true_positives=hits,
            precision=hits / alarms if alarms else None,
            recall=hits / positives,
            f1=2 * hits / (alarms + positives),
            accuracy=None,
            roc_auc=None,
            average_precision=None,
            alert_rate=alarms / rows,
        )
        for hits, alarms in ((new_hits, new_alarms), (old_hits, old_alarms))
    )
    return Evidence(
        first=False,
        candidate=candidate,
        champion=champion,
        bootstrap=bootstrap,
        holdout_rows=rows,
        holdout_positives=positives,
        holdout_hash="",
        excluded_rows=0,
        flag_everything_f1=flag_everything_f1(rows, positives),
    )
