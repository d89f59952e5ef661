import shutil

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from mllib.detectors._calibration import BORDERS, Calibration, ScoreDistribution, severities
from mllib.detectors._isolation import MAX_DEPTH, IsolationTrees, fit_trees
from mllib.detectors._walk import attribute_in_numpy, compiled, compiled_attribution, in_numpy
from mllib.errors import BadArtifact
from mllib.types import Severity


def sample(n: int = 2_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n, 5)), rng.integers(0, 2, (n, 3))], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def trees() -> IsolationTrees:
    return fit_trees(sample(), n_estimators=30, seed=7)


@pytest.mark.parametrize("rows", [100, 2_000])
def test_scores_are_those_of_scikit_learn(rows):
    train, test = sample(rows), sample(5_000, seed=1) * 2
    forest = IsolationForest(n_estimators=100, random_state=42).fit(train)
    ours = fit_trees(train, n_estimators=100, seed=42).scores(test)
    np.testing.assert_allclose(ours, -forest.score_samples(test), rtol=0, atol=1e-6)


def test_a_score_does_not_depend_on_the_rows_around_it(trees):
    rows = sample(9_000, seed=2)
    whole = trees.scores(rows)
    for cut in (1, 17, 4_096, 8_999):
        assert np.concatenate([trees.scores(rows[:cut]), trees.scores(rows[cut:])]).tobytes() == whole.tobytes()
    singles = [trees.scores(rows[i : i + 1])[0] for i in range(0, 9_000, 90)]
    assert singles == whole[::90].tolist()
    assert trees.scores(rows[:0]).shape == (0,)


def test_both_walks_give_the_same_bits(trees):
    fast = compiled()
    if fast is None:
        assert not any(map(shutil.which, ("cc", "gcc", "clang"))), "there is a compiler, and the walk was not built"
        return
    for rows in (0, 1, 7, 8, 63, 64, 65, 5_000):
        features = sample(rows // 2 + 1, seed=rows)[:rows] if rows else sample(2)[:0]
        assert fast(trees._trees, features).tobytes() == in_numpy(trees._trees, features).tobytes()


def test_both_attributions_give_the_same_bits(trees):
    fast = compiled_attribution()
    assert (fast is None) == (compiled() is None)
    rows = sample(1_000, seed=5)
    for count in (0, 1, 7, 8, 63, 65, 1_000):
        slow, ended = attribute_in_numpy(trees._trees, trees._expected, rows[:count])
        for run in (fast, attribute_in_numpy):
            if run is not None:
                again, sums = run(trees._trees, trees._expected, rows[:count])
                assert (again.tobytes(), sums.tobytes()) == (slow.tobytes(), ended.tobytes())
        paths, parts = trees.credited(rows[:count])
        assert parts.tobytes() == trees.attributions(rows[:count]).tobytes() == (slow / 30).tobytes()
        assert paths.tobytes() == trees.paths(rows[:count]).tobytes()  # as the walk alone finds it


def test_attributions_of_every_row_add_up_to_what_its_paths_are_shorter(trees):
    rows = sample(4_000, seed=6) * 2
    parts = trees.attributions(rows)
    assert parts.shape == rows.shape
    np.testing.assert_allclose(parts.sum(axis=1), trees.usual_path - trees.paths(rows), rtol=0, atol=1e-9)
    # The paths are those of the score: 2^(-path / c).
    average = trees._normaliser / 30
    np.testing.assert_allclose(np.exp2(-trees.paths(rows) / average), trees.scores(rows), rtol=1e-12)


def test_what_a_node_expects_is_the_mean_over_the_rows_it_was_grown_on():
    # Fewer rows than a subsample: every tree is grown on all of them, so the mean over them is known.
    rows = sample(200)
    trees = fit_trees(rows, n_estimators=20, seed=3)
    assert trees.usual_path == pytest.approx(trees.paths(rows).mean(), abs=1e-9)


def test_a_feature_that_is_never_asked_for_has_no_part_and_an_outlying_one_has_most():
    rows = sample(1_000)
    rows[:, 3] = 1.0
    rows[0, 2] = 40.0
    parts = fit_trees(rows, n_estimators=100, seed=4).attributions(rows[:1])[0]
    assert parts[3] == 0
    assert parts.argmax() == 2
    assert parts[2] > parts.sum() / 2


def test_a_value_at_the_split_goes_left_as_in_scikit_learn():
    # Splits lie between float32 values; rows that lie on them, and next to them, must go the same way.
    train = sample(500)
    forest = IsolationForest(n_estimators=20, random_state=3).fit(train)
    splits = np.concatenate([tree.tree_.threshold[tree.tree_.children_left >= 0] for tree in forest.estimators_])
    edges = np.concatenate([splits.astype(np.float32), np.nextafter(splits.astype(np.float32), np.float32(np.inf))])
    rows = np.resize(edges, (len(edges) // 8 * 8,)).reshape(-1, 8)
    ours = fit_trees(train, n_estimators=20, seed=3).scores(rows)
    np.testing.assert_allclose(ours, -forest.score_samples(rows), rtol=0, atol=1e-9)


def test_a_tree_that_is_too_deep_to_walk_is_refused():
    depth = MAX_DEPTH + 1
    left, right = _chain(depth)
    chain = {
        "offsets": np.array([0, len(left)]),
        "left": left,
        "right": right,
        "feature": np.zeros(len(left), dtype=np.int32),
        "split": np.zeros(len(left)),
        "length": np.ones(len(left)),
        "normaliser": np.ones(1),
    }
    with pytest.raises(BadArtifact, match="deep"):
        IsolationTrees(chain, n_features=1)


def _chain(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """A tree that goes on to the right only: inner nodes at even places, leaves at odd ones and at the end."""
    left, right = np.full(2 * depth + 1, -1, dtype=np.int32), np.full(2 * depth + 1, -1, dtype=np.int32)
    left[: 2 * depth : 2], right[: 2 * depth : 2] = np.arange(1, 2 * depth, 2), np.arange(2, 2 * depth + 1, 2)
    return left, right


def test_constant_rows_have_one_ordinary_score():
    features = np.ones((200, 4), dtype=np.float32)
    scores = np.unique(fit_trees(features, n_estimators=10, seed=1).scores(features))
    assert scores.tolist() == pytest.approx([0.5])


def test_arrays_bring_the_same_trees_back(trees):
    again = IsolationTrees(trees.arrays, n_features=8)
    assert again.scores(sample(500)).tobytes() == trees.scores(sample(500)).tobytes()


def changed(trees: IsolationTrees, name: str, place: int, value: float) -> dict[str, np.ndarray]:
    array = trees.arrays[name].copy()
    array[place] = value
    return {**trees.arrays, name: array}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", 2**31 - 1),
        ("right", 2**31 - 1),
        ("left", -2),
        ("right", -1),
        ("left", 0),  # the root as its own child: a loop
        ("right", 0),
        ("feature", 8),
        ("feature", -1),
        ("split", np.nan),
        ("length", np.inf),
        ("length", -1.0),
        ("offsets", 1),
        ("normaliser", 0.0),
        ("normaliser", np.nan),
    ],
)
def test_arrays_out_of_range_are_refused(trees, name, value):
    with pytest.raises(BadArtifact, match="train again"):
        IsolationTrees(changed(trees, name, 0, value), n_features=8)


def test_a_child_in_the_next_tree_is_refused(trees):
    first_size = int(trees.arrays["offsets"][1])
    with pytest.raises(BadArtifact, match="children"):
        IsolationTrees(changed(trees, "right", 0, first_size), n_features=8)


@pytest.mark.parametrize("name", ["left", "offsets", "length"])
def test_missing_short_and_mistyped_arrays_are_refused(trees, name):
    without = {key: array for key, array in trees.arrays.items() if key != name}
    for wrong in (
        without,
        {**without, name: trees.arrays[name][:-1]},
        {**without, name: trees.arrays[name].astype(np.float32)},
        {**without, name: trees.arrays[name][:, None]},
    ):
        with pytest.raises(BadArtifact):
            IsolationTrees(wrong, n_features=8)


def test_the_threshold_is_exactly_the_border_and_the_scale_is_monotone():
    raw = np.sort(np.random.default_rng(0).beta(20, 25, 50_000))
    distribution = ScoreDistribution.of(raw)
    threshold = distribution.exceeded_by(0.1)
    assert (raw >= threshold).mean() == pytest.approx(0.1, abs=1e-3)
    calibration = Calibration(distribution, threshold)
    edge = np.array([0.0, np.nextafter(threshold, 0), threshold, 1.0])
    scores = calibration.scores(edge)
    assert scores[0] == 0
    assert scores[1] < 0.6 <= scores[2] == np.float32(0.6)
    assert scores[3] == 1
    assert (np.diff(calibration.scores(np.unique(raw.round(4)))) > 0).all()
    alerts = calibration.scores(raw[raw >= threshold]).astype(float)
    assert [(alerts >= border).mean() for border in BORDERS] == pytest.approx([1, 0.5, 0.2, 0.05], abs=0.01)


def test_anomaly_border_and_severity_agree_for_any_threshold():
    raw = np.random.default_rng(1).beta(20, 25, 3_000)
    distribution = ScoreDistribution.of(raw)
    for threshold in [*raw[:50], raw.max(), np.nextafter(raw.max(), 1), 1e-9, 1 - 1e-9]:
        scores = Calibration(distribution, threshold).scores(raw)
        flagged = raw >= threshold
        assert (scores.astype(float) >= 0.6).tolist() == flagged.tolist()
        assert (severities(scores) > Severity.NORMAL).tolist() == flagged.tolist()


def test_severities_have_the_documented_borders():
    scores = np.array([0, 0.59, 0.6, 0.69, 0.71, 0.79, 0.81, 0.89, 0.91, 1], dtype=np.float32)
    assert severities(scores).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("raw", [np.full(500, 0.5), np.repeat([0.4, 0.6], [300, 200]), np.array([0.5] * 499 + [0.7])])
def test_samples_with_ties_neither_flag_everything_nor_break_the_scale(raw):
    distribution = ScoreDistribution.of(raw)
    threshold = distribution.exceeded_by(0.1)
    assert (raw >= threshold).mean() <= 0.1
    scores = Calibration(distribution, threshold).scores(np.linspace(0, 1, 101))
    assert (np.diff(scores) > 0).all()


def test_small_alert_budgets_are_told_apart():
    raw = np.random.default_rng(2).beta(20, 25, 100_000)
    distribution = ScoreDistribution.of(raw)
    for rate in (0.01, 0.001, 0.0002):
        assert (raw >= distribution.exceeded_by(rate)).mean() == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_a_share(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ScoreDistribution.of(np.linspace(0, 1, 10)).exceeded_by(rate)


@pytest.mark.parametrize(
    "values", [np.zeros(5), np.linspace(1, 0, 1001), np.full(1001, np.nan), np.linspace(0, 2, 1001)]
)
def test_a_damaged_distribution_is_refused(values):
    with pytest.raises(BadArtifact):
        ScoreDistribution.load({"quantiles": values})
    with pytest.raises(BadArtifact):
        ScoreDistribution.load({})
