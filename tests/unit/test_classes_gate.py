"""Models that tell classes apart: their figures, the doubt about them, and the verdict, where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mllib.gate.class_metrics import ClassMetrics, class_metrics
from mllib.gate.evaluation import bootstrap_counts, paired_cluster_bootstrap
from mllib.gate.evidence import Evidence
from mllib.gate.paired_counts import PairedCounts, count_classes, count_clusters, f1_scores
from mllib.gate.promotion import Decision, decide
from mllib.gate.segments import Dimension, Segment, compare_anomalies, compare_classes, compare_parts, corrected, fallen
from mllib.gate.significance import permutation_test
from mllib.types import Policy, Verdict

NAMES = ("DEBUG", "INFO", "WARN", "ERROR")
Codes = np.ndarray


def make_rows(seed: int, *, clusters: int = 300, accuracy: tuple[float, float] = (0.8, 0.8)) -> tuple[Codes, ...]:
    """Rows in bursts of 1 to 8 of one class, the rarest one in 20 of them, and what two models say of each burst."""
    rng = np.random.default_rng(seed)
    of_cluster = rng.choice(4, clusters, p=[0.2, 0.6, 0.15, 0.05])
    said = [np.where(rng.random(clusters) < share, of_cluster, rng.integers(0, 4, clusters)) for share in accuracy]
    codes = np.repeat(np.arange(clusters), rng.integers(1, 9, clusters))
    return of_cluster[codes], said[0][codes], said[1][codes], codes


def make_counts(truth: Codes, new: Codes, old: Codes, codes: Codes) -> PairedCounts:
    return count_classes(truth, new, old, codes, classes=4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
@settings(deadline=None)
def test_figures_are_those_of_scikit_learn_over_the_classes_that_occur(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array(pairs).T
    found = class_metrics(truth, said, NAMES)
    there = np.unique(truth)
    assert found.macro_f1 == pytest.approx(sk.f1_score(truth, said, labels=there, average="macro", zero_division=0))
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, said))
    occurring = np.unique(pairs)
    assert [figures.name for figures in found.classes] == [NAMES[code] for code in occurring]
    every = sk.confusion_matrix(truth, said, labels=range(len(NAMES)))
    assert np.array_equal(found.confusion, every[np.ix_(occurring, occurring)])
    for wanted, value in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        by_class = value(truth, said, labels=occurring, average=None, zero_division=0)
        assert [getattr(figures, wanted) or 0.0 for figures in found.classes] == pytest.approx(by_class.tolist())
    often = np.full_like(truth, np.bincount(truth).argmax())
    assert found.most_frequent_f1 == pytest.approx(class_metrics(truth, often, NAMES).macro_f1)


def test_a_class_that_only_the_model_names_is_no_part_of_the_mean() -> None:
    truth = np.repeat([0, 1], 50)
    said = truth.copy()
    said[0] = 3
    found = class_metrics(truth, said, NAMES)
    assert found.macro_f1 == pytest.approx((2 * 49 / 99 + 1) / 2)
    assert found.classes[-1].name == "ERROR"
    assert (found.classes[-1].rows, found.classes[-1].predicted, found.classes[-1].recall) == (0, 1, None)
    assert class_metrics(truth[:0], truth[:0], NAMES).macro_f1 == 0.0
    for codes in (truth + 3, truth - 1, truth[1:]):
        with pytest.raises(ValueError, match="class"):
            class_metrics(truth, codes, NAMES)


def test_counts_give_the_macro_f1_of_both_models() -> None:
    truth, new, old, codes = make_rows(1)
    by_counts = f1_scores(make_counts(truth, new, old, codes).totals)
    assert by_counts == pytest.approx([class_metrics(truth, said, NAMES).macro_f1 for said in (new, old)])


def test_two_classes_counted_as_one_are_the_f1_of_anomalies() -> None:
    truth, new, old, codes = (np.asarray(part) for part in make_rows(2))
    one = make_counts(truth, new, old, codes).of_class(3)
    alone = count_clusters(truth == 3, new == 3, old == 3, codes)
    assert np.array_equal(one.vectors, alone.vectors)
    assert np.array_equal(one.times, alone.times)


def brute_bootstrap(truth: Codes, new: Codes, old: Codes, codes: Codes, *, resamples: int) -> np.ndarray:
    rng = np.random.default_rng(9)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([members[pick] for pick in rng.integers(0, len(members), len(members))])
        f1s = [class_metrics(truth[rows], said[rows], NAMES).macro_f1 for said in (new, old)]
        drawn.append(f1s[0] - f1s[1])
    return np.array(drawn)


def test_the_bootstrap_is_that_of_drawing_clusters_one_by_one() -> None:
    rows = make_rows(3)
    found = bootstrap_counts(make_counts(*rows))
    drawn = brute_bootstrap(*rows, resamples=800)
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.12)
    assert found.lower is not None
    # The interval is widened a little, for the clusters are not of equal weight.
    assert found.lower == pytest.approx(np.quantile(drawn, 0.05), abs=0.25 * drawn.std() + 0.01)


def test_many_distinct_vectors_are_drawn_cluster_by_cluster_with_the_same_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = make_counts(*make_rows(4, clusters=500))
    few = bootstrap_counts(counts), permutation_test(counts)
    monkeypatch.setattr("mllib.gate.evaluation.FEW_VECTORS", 0)
    monkeypatch.setattr("mllib.gate.significance.FEW_MOVES", 0)
    many = bootstrap_counts(counts), permutation_test(counts)
    assert many[0].difference == few[0].difference
    assert many[0].standard_error == pytest.approx(few[0].standard_error, rel=0.1)
    assert many[0].lower == pytest.approx(few[0].lower, abs=0.3 * (few[0].standard_error or 0))
    assert many[1] == pytest.approx(few[1], abs=0.06)


def test_order_of_rows_and_names_of_clusters_change_nothing() -> None:
    truth, new, old, codes = make_rows(5)
    order = np.random.default_rng(0).permutation(truth.size)
    shuffled = make_counts(truth[order], new[order], old[order], 7 - 3 * codes[order])
    assert bootstrap_counts(shuffled) == bootstrap_counts(make_counts(truth, new, old, codes))


def test_the_permutation_test_comes_near_to_swapping_every_set_of_clusters() -> None:
    truth, new, old, codes = make_rows(6, clusters=9)
    measured = class_metrics(truth, new, NAMES).macro_f1 - class_metrics(truth, old, NAMES).macro_f1
    extreme = 0
    for swaps in product([False, True], repeat=9):
        swapped = np.array(swaps)[codes]
        sides = np.where(swapped, old, new), np.where(swapped, new, old)
        f1s = [class_metrics(truth, said, NAMES).macro_f1 for said in sides]
        extreme += abs(f1s[0] - f1s[1]) >= abs(measured) - 1e-12
    assert permutation_test(make_counts(truth, new, old, codes)) == pytest.approx(extreme / 2**9, abs=0.04)


def make_evidence(
    truth: Codes, new: Codes, old: Codes | None, codes: Codes, *, segments: bool = False, **override: Any
) -> Evidence:
    """What the gate is shown of two models, or of a first one."""
    rival = np.full_like(truth, np.bincount(truth).argmax()) if old is None else old
    counts = make_counts(truth, new, rival, codes)
    found: tuple[Segment, ...] = corrected(compare_classes(counts, NAMES)) if segments else ()

    def measured(said: Codes) -> ClassMetrics:
        return replace(class_metrics(truth, said, NAMES), alert_rate=0.1)

    values: dict[str, Any] = {
        "first": old is None,
        "candidate": measured(new),
        "champion": None if old is None else measured(old),
        "bootstrap": bootstrap_counts(counts, resamples=500),
        "holdout_rows": truth.size,
        "holdout_positives": 0,
        "holdout_hash": "",
        "excluded_rows": 0,
        "flag_everything_f1": 0.0,
        "segments": found,
        "metric": "macro_f1",
    }
    return Evidence(**(values | override))


def judge(*rows: Any, **override: Any) -> Decision:
    return decide(make_evidence(*rows, **override), Policy.STRICT)


def promoted(accuracy: float, *, trials: int, by_row: bool = False) -> tuple[float, float]:
    """Share of trials in which strict and evidence promote a candidate that gets so many bursts right, against 0.8."""
    verdicts = []
    for seed in range(trials):
        truth, new, old, codes = make_rows(seed, accuracy=(accuracy, 0.8))
        decision = judge(truth, new, old, np.arange(truth.size) if by_row else codes)
        verdicts.append((decision.verdict is Verdict.PROMOTE, decision.other_verdict is Verdict.PROMOTE))
    strict, sure = np.mean(verdicts, axis=0)
    return float(strict), float(sure)


@pytest.mark.parametrize(("accuracy", "by_chance"), [(0.75, 0.02), (0.8, 0.08)], ids=["worse", "equal"])
def test_evidence_promotes_hardly_any_candidate_that_is_no_better(accuracy: float, by_chance: float) -> None:
    strict, sure = promoted(accuracy, trials=250)
    assert sure <= by_chance < strict


def test_evidence_promotes_a_much_better_candidate() -> None:
    strict, sure = promoted(0.95, trials=60)
    assert strict >= 0.95
    assert sure >= 0.8


def test_drawing_rows_instead_of_bursts_would_promote_far_too_many() -> None:
    assert promoted(0.8, trials=60, by_row=True)[1] > 0.15


def lose(said: Codes, truth: Codes, name: str, *, share: float) -> Codes:
    """The same answers, but this share of the class taken for INFO."""
    found = said.copy()
    of_class = np.flatnonzero(truth == NAMES.index(name))
    found[of_class[: int(share * of_class.size)]] = NAMES.index("INFO")
    return found


def test_a_class_that_is_hardly_found_any_more_refuses_a_gain_overall() -> None:
    truth, _, old, codes = make_rows(7, clusters=2_000)
    new = lose(truth, truth, "ERROR", share=0.6)
    decision = judge(truth, new, lose(old, truth, "ERROR", share=0.0), codes, segments=True)
    assert decision.verdict is Verdict.REFUSE
    assert "serves class ERROR clearly worse" in decision.reason
    assert "no class in recall" in decision.reason
    assert {gate.name for gate in decision.gates if not gate.passed} == {"slices"}


def test_recall_counts_where_f1_hides_the_loss() -> None:
    """The candidate calls nothing ERROR wrongly any more, and misses a fifth of the errors: F1 is no lower."""
    truth, _, _, codes = make_rows(8, clusters=2_000)
    errors = np.flatnonzero(truth == 3)
    old = truth.copy()
    old[np.flatnonzero(truth == 1)[: errors.size // 2]] = 3
    new = lose(truth, truth, "ERROR", share=0.2)
    counts = make_counts(truth, new, old, codes)
    found = corrected(compare_classes(counts, NAMES))
    (segment,) = (part for part in found if part.value == "ERROR")
    assert segment.difference > 0
    assert (segment.candidate_recall, segment.champion_recall) == (pytest.approx(0.8, abs=0.01), 1.0)
    assert fallen(found) == (segment,)


def test_a_class_with_few_rows_is_unknown_and_cannot_refuse() -> None:
    truth, _, _, codes = make_rows(9)
    rare = np.flatnonzero(truth == 3)
    truth[rare[29:]] = 1
    new, old = truth.copy(), truth.copy()
    new[rare[:29]] = 1
    old[np.flatnonzero(truth == 0)] = 1
    decision = judge(truth, new, old, codes, segments=True)
    (segment,) = (
        part for part in make_evidence(truth, new, old, codes, segments=True).segments if part.value == "ERROR"
    )
    assert (segment.known, segment.p_fall, segment.p_recall_fall) == (False, None, None)
    assert "slices" not in {gate.name for gate in decision.gates if not gate.passed}
    enough = {gate.name: gate for gate in decision.gates}["enough_classes"]
    assert enough.passed
    assert "ERROR (29)" in enough.detail


def test_parts_are_compared_by_macro_f1_and_anomalies_on_the_rows_that_have_a_label() -> None:
    truth, new, old, codes = make_rows(10, clusters=900)
    services = codes % 2
    dimension = {"service": Dimension(codes=services, names=("shop", "mail"))}
    for part in compare_parts(truth, new, old, codes, dimension, classes=4):
        at = services == ("shop", "mail").index(part.value)
        assert part.rows == at.sum()
        assert part.positives == at.sum() - (truth[at] == 1).sum()
        assert part.candidate_f1 == pytest.approx(class_metrics(truth[at], new[at], NAMES).macro_f1)
        assert part.champion_f1 == pytest.approx(class_metrics(truth[at], old[at], NAMES).macro_f1)
    anomalies = compare_anomalies(truth == 3, new == 3, old == 3, codes)
    alone = paired_cluster_bootstrap(truth == 3, new == 3, old == 3, codes)
    assert (anomalies.difference, anomalies.lower) == (alone.difference, alone.lower)


def test_a_first_champion_must_beat_the_most_frequent_class() -> None:
    truth, new, _, codes = make_rows(11)
    first = judge(truth, new, None, codes)
    assert first.verdict is Verdict.PROMOTE
    assert "better than calling every row by the most frequent class" in first.summary
    often = np.full_like(truth, 1)
    tie = judge(truth, often, None, codes)
    assert tie.verdict is Verdict.REFUSE
    assert "no better than calling every row by the most frequent class" in tie.summary


def test_ties_and_losses_name_the_figure() -> None:
    truth, new, old, codes = make_rows(12, accuracy=(0.7, 0.9))
    worse = judge(truth, new, old, codes)
    assert worse.verdict is Verdict.REFUSE
    assert "the candidate's macro-F1 of" in worse.reason
    tie = judge(truth, old, old, codes)
    assert (tie.verdict, "a tie is no gain" in tie.reason) == (Verdict.REFUSE, True)


def test_one_class_or_none_is_not_enough() -> None:
    truth, new, old, codes = make_rows(13)
    for rows, said in ((truth == 1, "more than one class"), (truth == 9, "no row to judge on")):
        some = np.flatnonzero(rows)
        if some.size:
            decision = judge(truth[some], new[some], old[some], codes[some])
        else:
            none = class_metrics(truth[:0], new[:0], NAMES)
            evidence = replace(
                make_evidence(truth, new, old, codes), candidate=none, champion=none, bootstrap=None, holdout_rows=0
            )
            decision = decide(evidence, Policy.STRICT)
        assert decision.verdict is Verdict.NOT_ENOUGH_EVIDENCE
        assert said in decision.summary


def test_alarms_are_limited_for_classes_too() -> None:
    truth, new, old, codes = make_rows(14, accuracy=(0.95, 0.7))
    evidence = make_evidence(truth, new, old, codes)
    assert evidence.candidate is not None
    assert evidence.champion is not None

    def at(candidate: float, champion: float) -> Decision:
        rates = {"candidate": candidate, "champion": champion}
        changed = {name: replace(getattr(evidence, name), alert_rate=rate) for name, rate in rates.items()}
        return decide(replace(evidence, **changed), Policy.STRICT)

    assert at(0.3, 0.1).verdict is Verdict.PROMOTE
    assert at(0.31, 0.1).verdict is Verdict.REFUSE
    # Nobody says what an anomaly is, and the champion raises no alarm: then any alarm is one too many to be sure of.
    assert at(0.0, 0.0).verdict is Verdict.PROMOTE
    assert "no label says how many" in at(0.01, 0.0).summary
