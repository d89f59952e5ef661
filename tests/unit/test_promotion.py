"""The gate as a table of cases: what was measured, what each policy says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mllib.gate.evaluation import BinaryMetrics, BootstrapDifference
from mllib.gate.promotion import Evidence, Footprint, decide
from mllib.gate.segments import Segment
from mllib.types import Policy, Verdict

PROMOTE, REFUSE, NOT_ENOUGH = Verdict.PROMOTE, Verdict.REFUSE, Verdict.NOT_ENOUGH_EVIDENCE
ROWS, POSITIVES, FLAG_EVERYTHING = 10_000, 100, 0.02


def make_metrics(
    f1: float, alert_rate: float | None = 0.01, rows: int = ROWS, positives: int = POSITIVES
) -> BinaryMetrics:
    return BinaryMetrics(
        rows=rows,
        positives=positives,
        alarms=100,
        true_positives=1,
        precision=None,
        recall=None,
        f1=f1,
        accuracy=None,
        roc_auc=None,
        average_precision=None,
        alert_rate=alert_rate,
    )


def make_evidence(new: float = 0.6, old: float | None = 0.5, lower: float | None = 0.01, **override: Any) -> Evidence:
    """A better candidate beyond doubt, unless overridden; ``old=None`` means that there is no champion."""
    bootstrap = BootstrapDifference(
        difference=new - (FLAG_EVERYTHING if old is None else old),
        lower=lower,
        upper=0.5,
        standard_error=0.02,
        resamples=2000,
        clusters=500,
        effective_clusters=1001.0,
    )
    values: dict[str, Any] = {
        "first": old is None,
        "candidate": make_metrics(new),
        "champion": None if old is None else make_metrics(old),
        "bootstrap": bootstrap,
        "holdout_rows": ROWS,
        "holdout_positives": POSITIVES,
        "holdout_hash": "ab" * 32,
        "excluded_rows": 0,
        "flag_everything_f1": FLAG_EVERYTHING,
    }
    return Evidence(**(values | override))


def make_segment(value: str = "checkout", **override: Any) -> Segment:
    """A service that loses beyond doubt, unless overridden."""
    values: dict[str, Any] = {
        "dimension": "service",
        "value": value,
        "rows": 900,
        "positives": 45,
        "candidate_f1": 0.41,
        "champion_f1": 0.72,
        "difference": -0.31,
        "lower": -0.4,
        "upper": -0.2,
        "p_fall": 0.002,
        "known": True,
    }
    return Segment(**(values | override))


UNKNOWN = make_segment("search", positives=29, p_fall=None, known=False)
MAY_BE_CHANCE = make_segment("search", p_fall=0.06)
SMALL_FALL = make_segment("search", candidate_f1=0.68, difference=-0.04)


def few(positives: int) -> dict[str, Any]:
    return {
        "holdout_positives": positives,
        "candidate": make_metrics(0.6, positives=positives),
        "champion": make_metrics(0.5, positives=positives),
    }


def make_footprint(seconds: float | None = 0.5, mib: float = 2.0) -> Footprint:
    return Footprint(seconds=seconds, artifact_bytes=int(mib * 2**20), artifact_digest="cd" * 32)


def costs(new: Footprint, old: Footprint) -> Evidence:
    return make_evidence(candidate_footprint=new, champion_footprint=old)


def ordinary(lines: int) -> dict[str, Any]:
    """So many labelled rows that are no anomaly."""
    rows = POSITIVES + lines
    figures = {"candidate": make_metrics(0.6, rows=rows), "champion": make_metrics(0.5, rows=rows)}
    return {"holdout_rows": rows, **figures}


NAN = math.nan
CASES = [
    ("better beyond doubt", make_evidence(), PROMOTE, PROMOTE),
    ("better, but it may be chance", make_evidence(lower=-0.01), PROMOTE, REFUSE),
    ("a lower bound of exactly the gain", make_evidence(lower=0.0), PROMOTE, REFUSE),
    ("better by a hair", make_evidence(0.5 + 1e-12, 0.5, lower=-0.1), PROMOTE, REFUSE),
    ("a tie", make_evidence(0.5, 0.5, lower=0.0), REFUSE, REFUSE),
    ("worse", make_evidence(0.4, 0.5, lower=-0.2), REFUSE, REFUSE),
    ("29 positives", make_evidence(**few(29)), NOT_ENOUGH, NOT_ENOUGH),
    ("30 positives", make_evidence(**few(30)), PROMOTE, PROMOTE),
    (
        "no positives and worse",
        make_evidence(0.4, 0.5, **(few(0) | {"candidate": make_metrics(0.4, positives=0)})),
        NOT_ENOUGH,
        NOT_ENOUGH,
    ),
    ("no bootstrap", make_evidence(bootstrap=None), PROMOTE, NOT_ENOUGH),
    ("too few clusters for a bound", make_evidence(lower=None), PROMOTE, NOT_ENOUGH),
    ("a NaN bound", make_evidence(lower=NAN), PROMOTE, NOT_ENOUGH),
    ("worse and no bootstrap", make_evidence(0.4, 0.5, bootstrap=None), REFUSE, REFUSE),
    ("candidate NaN", make_evidence(NAN, 0.5), REFUSE, REFUSE),
    ("champion NaN", make_evidence(0.6, NAN), REFUSE, REFUSE),
    ("candidate missing", make_evidence(candidate=None), REFUSE, REFUSE),
    ("champion's figures missing", make_evidence(champion=None), REFUSE, REFUSE),
    ("three times the alerts", make_evidence(candidate=make_metrics(0.6, 0.03)), PROMOTE, PROMOTE),
    ("more than three times the alerts", make_evidence(candidate=make_metrics(0.6, 0.0301)), REFUSE, REFUSE),
    ("alert rate missing", make_evidence(candidate=make_metrics(0.6, None)), REFUSE, REFUSE),
    ("alert rate NaN", make_evidence(champion=make_metrics(0.5, NAN)), REFUSE, REFUSE),
    ("silent champion, modest candidate", make_evidence(0.6, 0.0, champion=make_metrics(0.0, 0.0)), PROMOTE, PROMOTE),
    (
        "silent champion, noisy candidate",
        make_evidence(0.6, 0.0, champion=make_metrics(0.0, 0.0), candidate=make_metrics(0.6, 0.031)),
        REFUSE,
        REFUSE,
    ),
    ("better, but a service loses", make_evidence(segments=(make_segment(),)), REFUSE, REFUSE),
    ("worse for an unknown service", make_evidence(segments=(UNKNOWN,)), PROMOTE, PROMOTE),
    ("worse for a service by chance", make_evidence(segments=(MAY_BE_CHANCE,)), PROMOTE, PROMOTE),
    ("a little worse for a service", make_evidence(segments=(SMALL_FALL,)), PROMOTE, PROMOTE),
    (
        "too few positives and a service loses",
        make_evidence(**few(29), segments=(make_segment(),)),
        NOT_ENOUGH,
        NOT_ENOUGH,
    ),
    ("no bound and a service loses", make_evidence(lower=None, segments=(make_segment(),)), REFUSE, REFUSE),
    ("29 ordinary rows", make_evidence(**ordinary(29)), NOT_ENOUGH, NOT_ENOUGH),
    ("30 ordinary rows", make_evidence(**ordinary(30)), PROMOTE, PROMOTE),
    ("five times the volume", make_evidence(volume_ratio=5.0), PROMOTE, PROMOTE),
    ("more than five times the volume", make_evidence(volume_ratio=5.1), NOT_ENOUGH, NOT_ENOUGH),
    ("less than a fifth of the volume", make_evidence(volume_ratio=0.19), NOT_ENOUGH, NOT_ENOUGH),
    ("first, ten times the volume", make_evidence(0.6, None, volume_ratio=10.0), PROMOTE, PROMOTE),
    ("five times the share of anomalies", make_evidence(anomaly_ratio=5.0), PROMOTE, PROMOTE),
    ("more than five times the share of anomalies", make_evidence(anomaly_ratio=5.1), NOT_ENOUGH, NOT_ENOUGH),
    ("a tenth of the share of anomalies", make_evidence(anomaly_ratio=0.1), PROMOTE, PROMOTE),
    ("first, ten times the share of anomalies", make_evidence(0.6, None, anomaly_ratio=10.0), PROMOTE, PROMOTE),
    ("a defect", make_evidence(defects=("no features",)), REFUSE, REFUSE),
    ("a defect and too few positives", make_evidence(**few(29), defects=("no features",)), REFUSE, REFUSE),
    ("a defect and no figures", make_evidence(candidate=None, champion=None, defects=("x",)), REFUSE, REFUSE),
    ("three times as slow", costs(make_footprint(6.0), make_footprint(2.0)), PROMOTE, PROMOTE),
    ("more than three times as slow", costs(make_footprint(6.1), make_footprint(2.0)), REFUSE, REFUSE),
    ("much slower, but quick", costs(make_footprint(1.0), make_footprint(0.01)), PROMOTE, PROMOTE),
    ("three times as large", costs(make_footprint(mib=30), make_footprint(mib=10)), PROMOTE, PROMOTE),
    ("more than three times as large", costs(make_footprint(mib=31), make_footprint(mib=10)), REFUSE, REFUSE),
    ("much larger, but small", costs(make_footprint(mib=8), make_footprint(mib=1)), PROMOTE, PROMOTE),
    ("first, beats flag-everything", make_evidence(0.6, None), PROMOTE, PROMOTE),
    ("first, beats it, but it may be luck", make_evidence(0.6, None, lower=-0.01), PROMOTE, REFUSE),
    ("first, no bound", make_evidence(0.6, None, lower=None), PROMOTE, NOT_ENOUGH),
    ("first, flags 30 %", make_evidence(0.6, None, candidate=make_metrics(0.6, 0.3)), PROMOTE, PROMOTE),
    ("first, ties flag-everything", make_evidence(0.02, None), REFUSE, REFUSE),
    ("first, below flag-everything", make_evidence(0.01, None), REFUSE, REFUSE),
    ("first, NaN", make_evidence(NAN, None), REFUSE, REFUSE),
    ("first, no baseline", make_evidence(0.6, None, flag_everything_f1=NAN), REFUSE, REFUSE),
    (
        "first, too few positives",
        make_evidence(0.6, None, candidate=make_metrics(0.6, positives=3), holdout_positives=3),
        NOT_ENOUGH,
        NOT_ENOUGH,
    ),
]


@pytest.mark.parametrize(
    ("evidence", "strict", "proven"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdicts(evidence: Evidence, strict: Verdict, proven: Verdict) -> None:
    by_strict, by_evidence = decide(evidence, Policy.STRICT), decide(evidence, Policy.EVIDENCE)
    assert (by_strict.verdict, by_strict.other_verdict) == (strict, proven)
    assert (by_evidence.verdict, by_evidence.other_verdict) == (proven, strict)
    assert (by_strict.other_policy, by_evidence.other_policy) == (Policy.EVIDENCE, Policy.STRICT)
    for decision in (by_strict, by_evidence):
        assert all(gate.passed for gate in decision.gates) == (decision.verdict is PROMOTE)
        assert all(gate.detail in decision.reason for gate in decision.gates if not gate.passed)
        assert f"The {decision.other_policy} policy would" in decision.reason


WORDS = [
    (
        make_evidence(lower=-0.01),
        Policy.STRICT,
        "Promoted: the candidate did better than the champion on the same labelled rows. It is the champion now and "
        "scores new rows from now on. What to do: Nothing; should it prove worse, `millrace rollback`. Figures: the "
        "candidate's F1 of 0.6000 is higher than the 0.5000 of the champion, on the same 10,000 holdout rows with 100 "
        "labelled anomalies (with so few anomalies, a difference in F1 below 0.050 would often go unseen). The "
        "evidence policy would refuse it.",
    ),
    (
        make_evidence(lower=-0.01),
        Policy.EVIDENCE,
        "Refused: the difference may well be luck. The champion stays in production. What to do: Wait for more "
        "labelled anomalies, or label more rows (`millrace label FILE.csv`), and train again. Figures: the gain in F1 "
        "is +0.1000 and with 95 % confidence above -0.0100, which must be more than 0.0000 (with so few anomalies, a "
        "difference in F1 below 0.050 would often go unseen). The strict policy would promote it.",
    ),
    (
        make_evidence(),
        Policy.EVIDENCE,
        "Promoted: the candidate did better than the champion on the same labelled rows, beyond doubt. It is the "
        "champion now and scores new rows from now on.",
    ),
    (
        make_evidence(lower=None),
        Policy.EVIDENCE,
        "Not enough evidence: the labelled rows come from too few different hours to tell a gain from luck. The "
        "champion stays in production.",
    ),
    (
        make_evidence(0.4, 0.5, lower=-0.2),
        Policy.EVIDENCE,
        "Refused: the candidate did worse than the champion on the same labelled rows. The champion stays in "
        "production. What to do: Nothing; the next training tries again with newer rows. Figures: the "
        "candidate's F1 of 0.4000 is lower than the 0.5000 of the champion; the gain in F1",
    ),
    (
        make_evidence(0.5, 0.5, lower=0.0),
        Policy.STRICT,
        "Refused: the candidate did exactly as well as the champion on the same labelled rows, and a tie is no gain. "
        "The champion stays in production.",
    ),
    (
        make_evidence(0.4, 0.5, candidate=make_metrics(0.4, 0.9), changes=("The labels changed.",)),
        Policy.STRICT,
        "Refused: the candidate did worse than the champion on the same labelled rows, and the candidate would raise "
        "far more alarms than the champion. The champion stays in production. What to do: Look at the labels of the "
        "last weeks: labels that were flipped by mistake look like this. The labels changed. Figures:",
    ),
    (
        make_evidence(0.6, 0.0, champion=make_metrics(0.0, 0.0), candidate=make_metrics(0.6, 0.04)),
        Policy.STRICT,
        "Refused: the candidate would flag far more rows than there are anomalies. The champion stays in production.",
    ),
    (
        make_evidence(candidate=None),
        Policy.STRICT,
        "Refused: the models could not be compared. The champion stays in production. What to do: Train again;",
    ),
    (
        make_evidence(defects=("the features of the stored model are not those on record for it",)),
        Policy.STRICT,
        "Refused: the candidate's stored model cannot be used as it is. The champion stays in production. What to do: "
        "Train again; if it happens again, something changes models after their training. Figures: the features of "
        "the stored model are not those on record for it",
    ),
    (
        costs(make_footprint(6.1), make_footprint(2.0)),
        Policy.STRICT,
        "Refused: the candidate takes far longer than the champion to score the same rows. The champion stays in "
        "production. What to do: Look at what changed in the detector or its parameters. Figures: the candidate takes "
        "6.10 s and 2.0 MiB, the champion 2.00 s and 2.0 MiB, the limit is 3 times that (from 1 s and 8 MiB on)",
    ),
    (
        costs(make_footprint(mib=31), make_footprint(mib=10)),
        Policy.STRICT,
        "Refused: the candidate needs far more memory than the champion. The champion stays in production.",
    ),
    (
        make_evidence(volume_ratio=10.0),
        Policy.STRICT,
        "Not enough evidence: there are far more rows a day than in the weeks trained on, which says little of other "
        "days. The champion stays in production. What to do: Find out why the volume changed.",
    ),
    (
        make_evidence(anomaly_ratio=10.0),
        Policy.STRICT,
        "Not enough evidence: far more of the labelled rows are called anomalies than in the weeks trained on. The "
        "champion stays in production. What to do: Look at the labels of the last weeks:",
    ),
    (
        make_evidence(**few(3)),
        Policy.STRICT,
        "Not enough evidence: there are too few labelled anomalies to tell a good model from a lucky one. The champion "
        "stays in production. What to do: Label more rows (`millrace label FILE.csv`), anomalies above all, and train "
        "again.",
    ),
    (
        make_evidence(**few(0)),
        Policy.STRICT,
        "Not enough evidence: none of the labelled rows to judge on is an anomaly. The champion stays in production.",
    ),
    (
        make_evidence(**ordinary(0)),
        Policy.STRICT,
        "Not enough evidence: hardly any labelled row is an ordinary one, so false alarms cannot be counted. The "
        "champion stays in production. What to do: Label ordinary rows too",
    ),
    (
        make_evidence(0.6, None),
        Policy.STRICT,
        "Promoted as the first champion: the candidate is better than flagging every row. It scores new rows from "
        "now on. What to do: Look at its first alarms. Figures: the candidate's F1 of 0.6000 is higher",
    ),
    (
        make_evidence(0.01, None),
        Policy.STRICT,
        "Refused: the candidate is no better than flagging every row. There is still no champion, so nothing is "
        "scored. What to do: Check that the labels are right, label more rows, and train again.",
    ),
    (
        make_evidence(0.6, None, candidate=make_metrics(0.6, 0.3)),
        Policy.STRICT,
        "Promoted as the first champion: the candidate is better than flagging every row. It scores new rows from "
        "now on. What to do: Look at its first alarms. It flags far more rows than are labelled as "
        "anomalies, so most alarms will be false: label more rows, so that the next training finds a better "
        "threshold. Figures: the candidate's F1 of 0.6000 is higher than the 0.0200 of flagging every row, on the same "
        "10,000 holdout rows with 100 labelled anomalies; the candidate flags 30.00% of the rows, 1.00% are labelled",
    ),
]


@pytest.mark.parametrize(("evidence", "policy", "words"), WORDS, ids=[case[2][:70] for case in WORDS])
def test_a_verdict_says_what_happened_and_what_to_do_before_the_figures(
    evidence: Evidence, policy: Policy, words: str
) -> None:
    decision = decide(evidence, policy)
    assert decision.reason.startswith(words)
    assert decision.reason.startswith(f"{decision.summary} {decision.advice} ")
    # Digits are for the figures: whoever knows no statistics may stop reading before them.
    assert not any(letter.isdigit() for letter in decision.summary + decision.advice)


def test_a_difference_of_a_hair_is_printed_so_that_it_shows() -> None:
    assert "0.50001 is higher than the 0.50000" in decide(make_evidence(0.50001, 0.5), Policy.STRICT).reason


def test_a_checked_digest_is_in_the_figures() -> None:
    gates = {g.name: g for g in decide(costs(make_footprint(), make_footprint()), Policy.STRICT).gates}
    assert "(SHA-256 checked: cdcdcdcdcdcd...)" in gates["usable"].detail


def test_left_out_rows_are_counted_in_the_gate() -> None:
    gates = {gate.name: gate for gate in decide(make_evidence(excluded_rows=1234), Policy.STRICT).gates}
    assert "1,234 rows that a model was trained on are left out" in gates["enough_positives"].detail


def test_limits_can_be_set() -> None:
    assert decide(make_evidence(), Policy.STRICT, min_positives=101).verdict is NOT_ENOUGH
    assert decide(make_evidence(lower=0.01), Policy.EVIDENCE, min_gain=0.01).verdict is REFUSE
    assert decide(make_evidence(lower=0.011), Policy.EVIDENCE, min_gain=0.01).verdict is PROMOTE
    noisy = make_evidence(candidate=make_metrics(0.6, 0.05))
    assert decide(noisy, Policy.STRICT, alert_rate_limit=5.0).verdict is PROMOTE
    slow = costs(make_footprint(6.1), make_footprint(2.0))
    assert decide(slow, Policy.STRICT, cost_limit=4.0).verdict is PROMOTE
    assert decide(make_evidence(volume_ratio=9.0), Policy.STRICT, volume_limit=10.0).verdict is PROMOTE


def test_the_smallest_difference_is_given_below_300_positives_only() -> None:
    assert decide(make_evidence(), Policy.STRICT).smallest_difference == pytest.approx(2.4866 * 0.02, rel=1e-4)
    many = {"candidate": make_metrics(0.6, positives=300), "champion": make_metrics(0.5, positives=300)}
    assert decide(make_evidence(holdout_positives=300, **many), Policy.STRICT).smallest_difference is None


def test_single_feature_rules_change_nothing() -> None:
    plain = make_evidence()
    assert decide(replace(plain, rule_f1={"status >= 500": 0.99}), Policy.STRICT) == decide(plain, Policy.STRICT)


def test_figures_of_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="measure both models on the same rows"):
        make_evidence(champion=make_metrics(0.5, rows=9_999))
    with pytest.raises(ValueError, match="measure both models on the same rows"):
        make_evidence(holdout_positives=101)
    with pytest.raises(ValueError, match="the candidate first"):
        make_evidence(bootstrap=replace(make_evidence().bootstrap, difference=-0.1))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="not the first"):
        make_evidence(first=True)


def test_the_services_that_lose_are_named_the_worst_first() -> None:
    names = ["auth", "cart", "mail", "pay", "search"]
    segments = [make_segment(name, difference=-0.1 - n / 10, candidate_f1=0.5) for n, name in enumerate(names)]
    decision = decide(make_evidence(segments=(*segments, UNKNOWN)), Policy.STRICT)
    assert decision.summary.startswith(
        "Refused: the candidate serves service search, service pay, service mail and others clearly worse than the "
        "champion."
    )
    assert "for service search (F1 0.5000 against 0.7200 on 45 anomalies), service pay" in decision.reason
    assert "and 2 more; no service or level may lose more than 0.05 in F1" in decision.reason
    lenient = decide(make_evidence(segments=tuple(segments)), Policy.STRICT, segment_margin=0.6)
    assert lenient.verdict is PROMOTE


def test_services_that_could_not_be_judged_are_counted() -> None:
    gates = {g.name: g for g in decide(make_evidence(segments=(SMALL_FALL, UNKNOWN)), Policy.STRICT).gates}
    assert gates["slices"].detail == (
        "of 1 services and levels none is clearly worse by more than 0.05 in F1 (1 hold too few labelled anomalies to "
        "be judged)"
    )


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize(("p", "words"), [(0.31, "in 31 % of cases"), (0.0005, "in less than 1 % of cases")])
def test_tests_of_significance_are_told_and_never_decide(policy: Policy, p: float, words: str) -> None:
    plain = decide(make_evidence(), policy)
    told = decide(make_evidence(permutation_p=p, mcnemar_p=1.0), policy)
    assert f"Two equally good models would differ so much by chance {words}." in told.reason
    assert replace(told, reason=plain.reason) == plain


def test_a_tie_says_nothing_of_chance() -> None:
    assert "by chance" not in decide(make_evidence(0.5, 0.5, lower=0.0, permutation_p=1.0), Policy.STRICT).reason
