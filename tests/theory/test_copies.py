"""Copies and pickles of frozen objects: as frozen as the original, and nothing stale in them."""

import copy
import pickle

import numpy as np
import pytest

import theory as t
from theory import AveragingLaw, BinaryMixture, GaussianMixture, LinearClassifier, SecondOrderLaw, robust_accuracy
from theory.subpopulations import SubpopulationMixture

FULL = BinaryMixture(np.array([1.0, 2.0]), np.array([[2.0, 0.3], [0.3, 1.0]]), 0.3)
PLAIN = BinaryMixture(np.array([1.0, 2.0]), 0.5)


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize(
    ("made", "names"),
    [
        (FULL, ("mean", "cov", "covariance.value", "covariance.factor")),
        (PLAIN, ("mean", "covariance.value")),
        (GaussianMixture(np.eye(3), [1.0, np.ones(3), 2 * np.eye(3)], [0.2, 0.3, 0.5]), ("means", "weights")),
        (LinearClassifier(np.array([1.0, -2.0]), 0.3), ("weights",)),
        (SubpopulationMixture(np.array([[1.0, 0.0], [0.0, 2.0]])), ("means", "weights")),
    ],
)
def test_a_copy_cannot_be_changed_either(made, names, remake):
    again = remake(made)
    for name in names:
        one, other = made, again
        for step in name.split("."):
            one, other = getattr(one, step), getattr(other, step)
        np.testing.assert_array_equal(one, other)
        if not name.endswith("factor"):  # computed, and computed anew
            assert not other.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                other[...] = 0


def test_laws_are_copied_whole():
    for law in (AveragingLaw(PLAIN, PLAIN, 5, 0.2), SecondOrderLaw(PLAIN, PLAIN, 5, 0.2, np.inf)):
        assert copy.deepcopy(law).mean() == law.mean()
    classifier = LinearClassifier(np.array([1.0, 0.5]))
    assert robust_accuracy(copy.deepcopy(classifier), copy.deepcopy(FULL), 0.1) == robust_accuracy(classifier, FULL, 0.1)


def test_one_covariance_for_three_classes_in_three_dimensions_is_asked_back():
    """It was read as three diagonals: variances 2, .3, .1 for the first class."""
    shared = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.5]])
    with pytest.raises(
        ValueError, match=r"covs is one array of shape \(3, 3\): give .* \[cov\] \* 3 .* \[numpy.array\(v\) for v in covs\] for"
    ):
        GaussianMixture(np.eye(3), shared)
    for nested in (shared.tolist(), tuple(map(tuple, shared))):
        with pytest.raises(ValueError, match="covs is one array"):
            GaussianMixture(np.eye(3), nested)
    with pytest.raises(ValueError, match=r"\[cov\] \* 2 for a covariance that all share"):
        GaussianMixture(np.eye(3)[:2], shared)
    x = np.random.default_rng(0).standard_normal((4, 3))
    same = GaussianMixture(np.eye(3), [shared] * 3)
    np.testing.assert_allclose(same.score(x, y=np.zeros(4, int)), -np.linalg.solve(shared, (x - np.eye(3)[0]).T).T)
    diagonals = GaussianMixture(np.eye(3), list(shared))
    np.testing.assert_allclose(diagonals.score(x, y=np.zeros(4, int)), -(x - np.eye(3)[0]) / shared[0])
    np.testing.assert_array_equal(
        GaussianMixture(np.eye(2), [[1.0, 1.0], [1.0, 1.0]]).covs[0], [1.0, 1.0]
    )  # no covariance: singular
    one_each = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])  # no symmetric matrix: diagonals
    np.testing.assert_array_equal(GaussianMixture(np.eye(3), one_each).covs[1], one_each[1])


def test_what_a_caller_changes_afterwards_is_none_of_the_law():
    snr, n = np.array([2.0, 1.0]), np.array([5.0, 5.0])
    law = t.ProportionalLaw(snr, n)
    before = law.alignment
    snr[1] = 4.0
    assert copy.deepcopy(law).alignment == before
    assert not law.class_snr.flags.writeable


def test_what_a_law_keeps_cannot_be_sorted():
    law = t.QuasiMonteCarloLaw(t.BinaryMixture([1.0, 0.5]), t.BinaryMixture([1.0, 0.5]), 5, 0.1)
    with pytest.raises(ValueError, match="read-only"):
        law.accuracies.ravel().sort()


def test_results_with_arrays_compare_by_identity():
    one, other = (t.linf_training(t.BinaryMixture([1.0, 0.5]), 0.1) for _ in range(2))
    assert (one == other) is False
    assert len({one, other}) == 2


def test_a_bound_without_effect_is_refused():
    with pytest.raises(ValueError, match="largest=5: has no effect as n grows without bound"):
        t.optimal_class_snr(largest=5.0)
