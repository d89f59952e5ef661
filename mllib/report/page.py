"""Puts a report together: measures, marks and words into the template, which escapes whatever it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics
from mllib.gate.promotion import Evidence
from mllib.report import charts, measures, words
from mllib.report.contents import ExampleGroup, Judgement, Rows, Version
from mllib.types import Verdict

TEMPLATES = Path(__file__).parent / "templates"
MAX_TEXT = 240
"""Characters of a log message, or of any other text out of a log, that are shown."""
MAX_SENTENCES = 6000
"""Characters of a sentence of ours that are shown: it may hold names out of a log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One row of the table that sets both models side by side."""

    name: str
    meaning: str
    candidate: str
    rival: str
    difference: str


def render(
    judgement: Judgement,
    rows: Rows,
    *,
    label_counts: Mapping[str, Mapping[str, int]],
    rows_per_day: float | None,
    versions: tuple[Version, ...],
    examples: tuple[ExampleGroup, ...],
) -> str:
    """The page, as one HTML document without scripts and without anything to fetch.

    ``rows`` has the scores of the candidate and, where there is a champion, of the champion; of neither when the
    candidate could not be measured. ``label_counts`` gives
    ``rows``, ``labelled`` and ``positives`` by slice, ``rows_per_day`` counts all rows of the holdout, labelled or
    not; None where it is not known.
    """
    evidence = judgement.evidence
    has_champion = evidence.champion is not None
    names = ("Candidate", "Champion")[: len(rows.scores)]
    styles = ("candidate", "champion")
    classed = evidence.classes
    trivial = "The most frequent class" if classed else "Flagging every row"
    curves = [
        charts.line(name, style, curve)
        for number, (name, style) in enumerate(zip(names, styles, strict=False))
        if not classed
        and (curve := measures.precision_recall(rows.positive, rows.scores[number], rows.thresholds[number]))
    ]
    confusions = [
        (name, style, measures.confusion(rows.positive, rows.flags(number)))
        for number, (name, style) in enumerate(zip(names, styles, strict=False))
        if not classed
    ]
    if evidence.first and confusions:
        everything = measures.confusion(rows.positive, rows.positive | True)
        confusions.append(("Flagging every row", "champion", everything))
    class_confusions = [
        (name, style, measures.class_confusion(metrics))
        for name, style, metrics in zip(names, styles, (evidence.candidate, evidence.champion), strict=False)
        if isinstance(metrics, ClassMetrics)
    ]
    parts: tuple[measures.SliceF1, ...] = ()
    if rows.scores:
        parts = measures.class_f1(evidence) if classed else measures.slice_f1(rows, evidence.segments)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            judgement=judgement,
            evidence=evidence,
            decision=judgement.decision,
            summary=words.summary(judgement),
            measured=evidence.candidate is not None,
            figures=_figures(evidence, rows_per_day),
            label_counts=label_counts,
            rival="Champion" if has_champion else trivial,
            baselines=_baselines(evidence, trivial),
            class_confusions=class_confusions,
            curves=curves,
            base_rate=charts.y(evidence.holdout_positives / evidence.holdout_rows) if evidence.holdout_rows else None,
            chart=charts,
            confusions=confusions,
            slices=[
                (part, charts.whisker(part.candidate), charts.whisker(part.champion) if part.champion else None)
                for part in parts
            ],
            agreement=measures.agreement(rows) if has_champion else None,
            agreement_by_part=measures.agreement_by(rows, next(iter(rows.dimensions)))
            if has_champion and rows.dimensions
            else (),
            examples=examples,
            versions=versions,
        )
    )


@cache
def environment() -> Environment:
    """Jinja with every value escaped, and an error for a name that is missing. Other pages may add their templates."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["shown"] = shown
    found.filters["number"] = lambda value: f"{value:,}"
    found.filters["percent"] = lambda value: f"{value:.1%}"
    found.filters["signed"] = _signed
    found.filters["code"] = code
    found.filters["gate_name"] = words.gate_name
    found.filters["badge"] = lambda verdict: words.BADGES[Verdict(verdict)]
    found.globals["stylesheet"] = stylesheet
    return found


@cache
def stylesheet() -> Markup:
    """The styles, to stand between the tags of a style element. Ours, so not escaped."""
    return Markup((TEMPLATES / "report.css").read_text())  # noqa: S704


def shown(text: str | None, most: int = MAX_TEXT) -> str:
    """Text out of a log, cut to ``most`` characters, with everything invisible made visible.

    Control characters and those that turn the direction of writing could make a line look like another one.
    """
    if text is None:
        return "(none)"
    cut = text[: most + 1]
    visible = "".join(c if c.isprintable() else _escaped(c) for c in cut[:most])
    return visible + ("…" if len(cut) > most else "")


def code(text: str) -> Markup:
    """A sentence of ours with `` `commands` `` in it, these set as code. It may name a service, so all is escaped."""
    parts = [escape(part) for part in shown(text, MAX_SENTENCES).split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _signed(value: float) -> str:
    """With two digits and a sign, but for what is 0 when rounded."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _escaped(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "    "}.get(character) or f"\\u{ord(character):04x}"


def _baselines(evidence: Evidence, trivial: str) -> dict[str, float]:
    """F1 of rules of thumb by name."""
    if not evidence.classes:
        return {trivial: evidence.flag_everything_f1, **evidence.rule_f1}
    return {trivial: evidence.candidate.most_frequent_f1} if isinstance(evidence.candidate, ClassMetrics) else {}


def _figures(evidence: Evidence, rows_per_day: float | None) -> list[Figure]:
    if evidence.classes:
        return _class_figures(evidence, rows_per_day)
    new, old = evidence.candidate, evidence.champion
    first = evidence.first
    everything = {"f1": evidence.flag_everything_f1, "recall": 1.0, "alert_rate": 1.0}
    if evidence.holdout_rows:
        everything["precision"] = evidence.holdout_positives / evidence.holdout_rows

    def pair(name: str) -> tuple[float | None, float | None]:
        return _figure(new, name), everything.get(name) if first else _figure(old, name)

    f1, precision, recall, rate = pair("f1"), pair("precision"), pair("recall"), pair("alert_rate")
    new_daily, old_daily = (None if share is None or rows_per_day is None else share * rows_per_day for share in rate)
    return [
        Figure(
            name="F1",
            meaning="precision and recall in one number, 1 is perfect; the verdict goes by it",
            candidate=_or_dash(f1[0], ".4f"),
            rival=_or_dash(f1[1], ".4f"),
            difference=_or_dash(_minus(*f1), "+.4f"),
        ),
        Figure(
            name="Precision",
            meaning="of its alarms, how many were right",
            candidate=_or_dash(precision[0], ".1%"),
            rival=_or_dash(precision[1], ".1%"),
            difference=_points(_minus(*precision)),
        ),
        Figure(
            name="Recall",
            meaning="of the anomalies, how many it found",
            candidate=_or_dash(recall[0], ".1%"),
            rival=_or_dash(recall[1], ".1%"),
            difference=_points(_minus(*recall)),
        ),
        Figure(
            name="Alert rate",
            meaning="of all labelled rows, how many it flags",
            candidate=_or_dash(rate[0], ".2%"),
            rival=_or_dash(rate[1], ".2%"),
            difference=_points(_minus(*rate), digits=2),
        ),
        Figure(
            name="Alarms a day",
            meaning="at that rate, with all rows of the holdout",
            candidate=_or_dash(new_daily, ",.0f"),
            rival=_or_dash(old_daily, ",.0f"),
            difference=_or_dash(_minus(new_daily, old_daily), "+,.0f"),
        ),
    ]


def _class_figures(evidence: Evidence, rows_per_day: float | None) -> list[Figure]:
    new, old = evidence.candidate, evidence.champion
    f1 = _figure(new, "f1"), evidence.rival_f1
    accuracy = _figure(new, "accuracy"), _figure(old, "accuracy")
    rate = _figure(new, "alert_rate"), _figure(old, "alert_rate")
    daily = [None if share is None or rows_per_day is None else share * rows_per_day for share in rate]
    found = [_figure(getattr(metrics, "anomalies", None), "f1") for metrics in (new, old)]
    return [
        Figure(
            name="Macro-F1",
            meaning="the mean of the classes' F1s, each class alike, 1 is perfect; the verdict goes by it",
            candidate=_or_dash(f1[0], ".4f"),
            rival=_or_dash(f1[1], ".4f"),
            difference=_or_dash(_minus(*f1), "+.4f"),
        ),
        Figure(
            name="Accuracy",
            meaning="of all rows, how many are called by their class",
            candidate=_or_dash(accuracy[0], ".1%"),
            rival=_or_dash(accuracy[1], ".1%"),
            difference=_points(_minus(*accuracy)),
        ),
        Figure(
            name="Alert rate",
            meaning="of the rows, how many it flags as an anomaly",
            candidate=_or_dash(rate[0], ".2%"),
            rival=_or_dash(rate[1], ".2%"),
            difference=_points(_minus(*rate), digits=2),
        ),
        Figure(
            name="Alarms a day",
            meaning="at that rate, with all rows of the holdout",
            candidate=_or_dash(daily[0], ",.0f"),
            rival=_or_dash(daily[1], ",.0f"),
            difference=_or_dash(_minus(*daily), "+,.0f"),
        ),
        Figure(
            name="F1 of anomalies",
            meaning="on the rows of which it is known whether they are one",
            candidate=_or_dash(found[0], ".4f"),
            rival=_or_dash(found[1], ".4f"),
            difference=_or_dash(_minus(*found), "+.4f"),
        ),
    ]


def _figure(metrics: BinaryMetrics | ClassMetrics | None, name: str) -> float | None:
    value: float | None = getattr(metrics, name, None)
    return value


def _minus(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _points(difference: float | None, *, digits: int = 1) -> str:
    return "-" if difference is None else f"{100 * difference:+.{digits}f} points"
