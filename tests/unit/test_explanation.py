"""Explanations over a forest whose questions are known: one tree that asks for the hour, then for the level."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from mllib.detectors._explanation import Category, Explainer, Figure, Group, Usual, Words, one_hot_codes
from mllib.detectors._isolation import IsolationTrees
from mllib.detectors._log_features import SERVICES, feature_names
from mllib.detectors._log_groups import DAYS, HOURS, groups
from mllib.errors import BadArtifact
from mllib.features.encoders import cyclic_time, one_hot

GROUPS: tuple[Group, ...] = (
    Figure(name="time", column=0, unit="ms", advice="the clock"),
    Category(name="kind", columns=range(1, 3), codes=one_hot_codes, size=3, labels=("none", "a", "b"), advice="kinds"),
    Words(name="message", columns=range(3, 5), terms=("disk", "full"), advice="words"),
)


def tree() -> IsolationTrees:
    """Four rows: time above 10 alone at depth 1; of the others, kind b alone at depth 2, and two left over."""
    return IsolationTrees(
        {
            "offsets": np.array([0, 5]),
            "left": np.array([1, 3, -1, -1, -1], dtype=np.int32),
            "right": np.array([2, 4, -1, -1, -1], dtype=np.int32),
            "feature": np.array([0, 2, 0, 0, 0], dtype=np.int32),
            "split": np.array([10.0, 0.5, 0, 0, 0]),
            "length": np.array([0.0, 0.0, 1.0, 3.0, 2.0]),  # two rows stand for one more split
            "normaliser": np.array([2.0]),
        },
        n_features=5,
    )


def explain(features: list[float], threshold: float = 0.5) -> dict[str, object]:
    training = np.array([[1, 1, 0, 0, 0], [2, 1, 0, 1, 0], [3, 0, 1, 0, 0], [9, 1, 0, 0, 0]], dtype=np.float32)
    explainer = Explainer(GROUPS, tree(), Usual.of(GROUPS, training))
    [text] = explainer.explain(pl.DataFrame({"x": [0]}), np.array([features], dtype=np.float32), threshold)
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_each_split_is_credited_to_the_feature_that_was_asked() -> None:
    # On average 2.25 splits: (1 + 2 + 3 + 3) / 4; where time is at most 10 it is (2 + 3 + 3) / 3.
    said = explain([50, 1, 0, 0, 0], threshold=0.7)
    assert (said["usual_path"], said["path"], said["excess"]) == (2.25, 1, 1.25)
    assert said["features"] == [{"name": "time", "unit": "ms", "normal": [1.15, 8.1], "value": 50, "share": 1}]
    assert (said["other"], said["look_at"]) == (0, "the clock")
    assert said["normal_with"] == {"name": "time", "unit": "ms", "value": 8.1}


def test_a_part_that_speaks_for_the_row_is_in_the_rest_as_a_negative_share() -> None:
    said = explain([5, 0, 1, 0.5, 0])
    assert said["excess"] == 0.25
    kind = (8 / 3 - 2) / 0.25
    assert said["features"] == [{"name": "kind", "value": "b", "seen": 0.25, "share": pytest.approx(kind, abs=1e-4)}]
    assert said["other"] == pytest.approx(1 - kind, abs=1e-4)
    assert "normal_with" not in said


def test_without_excess_there_are_no_shares() -> None:
    said = explain([5, 1, 0, 0, 0])
    assert said["excess"] == -0.75
    assert "features" not in said


def test_stored_figures_of_other_features_are_refused() -> None:
    usual = Usual.of(GROUPS, np.ones((3, 5), dtype=np.float32))
    assert Usual.load(usual.arrays, GROUPS).shares.tolist() == usual.shares.tolist()
    with pytest.raises(BadArtifact, match="train again"):
        Usual.load(usual.arrays, GROUPS[:1])
    with pytest.raises(BadArtifact, match="train again"):
        Usual.load({**usual.arrays, "normal_ranges": np.full((1, 2), np.nan)}, GROUPS)


@pytest.mark.parametrize(("services", "words"), [((), ()), (("a", "b"), ("disk",))])
def test_the_groups_of_a_log_line_cover_its_features_in_order(
    services: tuple[str, ...], words: tuple[str, ...]
) -> None:
    found = groups(services, words)
    columns = [column for group in found for column in group.columns]
    names = feature_names(services, words)
    assert columns == list(range(len(names)))
    for group in found:
        if isinstance(group, Figure):
            assert names[group.column] == group.name
    at_service = next(group for group in found if group.name == "service").columns
    assert [names[column].startswith("service") for column in at_service] == [True] * SERVICES


def test_hours_and_days_come_back_from_their_circle() -> None:
    monday = 4 * 24  # hours from 1970 to the first Monday
    hours = np.arange(24 * 7)
    features = np.zeros((len(hours), 78), dtype=np.float32)
    features[:, 2:6] = cyclic_time((monday + hours) * 3_600_000_000)
    by_name = {group.name: group for group in groups((), ()) if isinstance(group, Category)}
    hour, day = by_name["hour"], by_name["day"]
    assert hour.codes(features[:, 2:4]).tolist() == (hours % 24).tolist()
    assert day.codes(features[:, 4:6]).tolist() == (hours // 24).tolist()
    assert (hour.labels, day.labels) == (HOURS, DAYS)


def test_one_hot_codes_tell_none_from_the_first() -> None:
    assert one_hot_codes(one_hot(np.array([-1, 0, 2, 7]), 3)).tolist() == [0, 1, 3, 0]
