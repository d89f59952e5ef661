"""What an operator is told of unusual logs and labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mllib.gate.changes import SliceContents, anomaly_ratio, unusual, volume_ratio

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def make_slice(**override: Any) -> SliceContents:
    values: dict[str, Any] = {
        "rows": 10_000,
        "length": timedelta(days=10),
        "labelled": 5_000,
        "positives": 100,
        "kinds": {"service": {"cart": 9_000, "pay": 1_000}, "level": {"INFO": 9_500, "ERROR": 500}},
    }
    return SliceContents(**(values | override))


def told(train: SliceContents, holdout: SliceContents, *, age: timedelta = timedelta(0), positives: int = 100) -> str:
    return " ".join(unusual(train, make_slice(positives=positives), holdout, newest=NOW - age, as_of=NOW))


def services(**rows: int) -> dict[str, Any]:
    return {"kinds": {**make_slice().kinds, "service": rows}}


def levels(**rows: int) -> dict[str, Any]:
    return {"kinds": {**make_slice().kinds, "level": rows}}


@pytest.mark.parametrize(
    ("holdout", "sentence"),
    [
        ({}, ""),
        ({"rows": 0, "labelled": 0, "positives": 0, "kinds": services(cart=0)["kinds"] | levels()["kinds"]}, None),
        ({"length": timedelta(days=1)}, "There are 10 times as many rows a day as in the weeks trained on."),
        ({"length": timedelta(days=50)}, "There are only 20% of the rows a day as in the weeks trained on."),
        ({"length": timedelta(days=4)}, ""),
        (services(cart=10_000), "The service pay has gone (10.0% of the rows before), so it is not known how the "),
        (services(cart=9_950, pay=50), "The service pay has gone"),
        (services(cart=9_850, pay=150), ""),
        (services(cart=8_000, pay=1_000, mail=1_000), "The service mail is new (10.0% of the rows now)."),
        (services(cart=9_000, pay=950, mail=50), ""),
        (levels(INFO=9_500, NOTICE=500), "The level ERROR has gone and NOTICE is new: was it renamed?"),
        ({"positives": 4_900}, "2.0% of those used for the threshold, 98.0% of those judged on. Were labels flipped?"),
        ({"positives": 350}, "changes: 2.0% of those trained on, 2.0% of those used for the threshold, 7.0% of those"),
        ({"positives": 250}, ""),
    ],
)
def test_what_is_told(holdout: dict[str, Any], sentence: str | None) -> None:
    found = told(make_slice(), make_slice(**holdout))
    if sentence is not None:
        assert sentence in found
        assert bool(sentence) == bool(found)


def test_labels_flipped_in_the_validation_slice_are_told() -> None:
    assert "98.0% of those used for the threshold" in told(make_slice(), make_slice(), positives=4_900)


def test_labels_flipped_everywhere_are_told_though_nothing_changes() -> None:
    found = told(make_slice(positives=4_900), make_slice(positives=4_900), positives=4_900)
    assert found.startswith("The share of anomalies among the labelled rows is high: 98.0% of those trained on")
    assert found.endswith("Were labels flipped?")


def test_labels_that_end_early_are_told() -> None:
    assert told(make_slice(), make_slice(), age=timedelta(days=1)) == ""
    assert "label is 7 days older than the training" in told(make_slice(), make_slice(), age=timedelta(days=7))


def test_many_services_at_once_are_counted() -> None:
    many = services(**{f"s{n}": 2_000 for n in range(5)})
    found = told(make_slice(**many), make_slice(**services(cart=10_000)))
    assert "The service s0, s1, s2 and 2 more has gone (100.0% of the rows before)" in found


def test_volume_is_compared_by_the_day() -> None:
    assert volume_ratio(make_slice(), make_slice(length=timedelta(days=2))) == pytest.approx(5.0)
    assert volume_ratio(make_slice(rows=0), make_slice()) is None


def test_the_share_of_anomalies_is_compared_where_it_is_known() -> None:
    assert anomaly_ratio(make_slice(), make_slice(labelled=500)) == pytest.approx(10.0)
    assert anomaly_ratio(make_slice(positives=29), make_slice()) is None
    assert anomaly_ratio(make_slice(), make_slice(labelled=0, positives=0)) is None
