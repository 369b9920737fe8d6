"""T15 against T10 to T12, importance-weighted samples, and fits with another library."""

import math
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from theory import (
    BinaryMixture,
    LinearClassifier,
    SubpopulationMixture,
    direction_variance,
    pooled_direction_variance,
    robust_accuracy,
    subpopulation_law,
)


def mixture(seed, dim=4, parts=3, std=0.8):
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 0.5, (parts, dim))
    means[:, 0] += 1.2
    return SubpopulationMixture(means, rng.dirichlet(np.full(parts, 3.0)), std)


@pytest.mark.parametrize(("snr", "eps"), [(0.5, 0.0), (1.2281, 0.0), (4.0, 0.0), (1.6, 0.4), (3.0, 1.7)])
@pytest.mark.parametrize("unit", [1.0, 0.37])
def test_one_subpopulation_is_t10_and_t11(snr, eps, unit):
    mean = np.random.default_rng(1).standard_normal(6)
    mean *= snr * unit / np.linalg.norm(mean)
    law = subpopulation_law(SubpopulationMixture([mean], std=unit), "logistic", eps * unit)
    assert law.rank == 1
    assert law.variance == pytest.approx(direction_variance(snr, "logistic", eps), rel=1e-9)
    assert law.direction / np.linalg.norm(law.direction) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-9)
    averaging = subpopulation_law(SubpopulationMixture([mean], std=unit), "averaging")
    assert averaging.variance == pytest.approx(direction_variance(snr, "averaging"), rel=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_subpopulations_on_one_line_are_pooled_parts(eps):
    line = np.array([0.6, -0.8])
    law = subpopulation_law(SubpopulationMixture(np.outer([0.4, 1.3, 2.2], line), [0.2, 0.5, 0.3], 0.9), "logistic", eps)
    assert law.variance == pytest.approx(pooled_direction_variance([0.4, 1.3, 2.2], [0.9] * 3, [0.2, 0.5, 0.3], eps), rel=1e-9)


def test_robust_accuracy_is_t1_weighted():
    one = mixture(2)
    w = np.random.default_rng(3).standard_normal(4)
    exact = sum(
        q * robust_accuracy(LinearClassifier(w), BinaryMixture(m, 0.64), 0.3) for q, m in zip(one.weights, one.means, strict=True)
    )
    assert one.robust_accuracy(w, 0.3) == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("strength", [-0.7, 0.4])
def test_sharpened_is_the_tilted_density(strength):
    """Means and second moments under importance weights exp(strength y v.x / std) of the plain samples; abs(z) < 4 for 8 numbers."""
    one, direction = mixture(4, dim=2), np.array([3.0, 1.0])
    rng, n = np.random.default_rng(5), 400_000
    x, y = one.sample(n, rng)
    signed = y[:, None] * x
    weight = np.exp(strength * (signed @ direction) / np.linalg.norm(direction) / one.std)
    weight /= weight.mean()
    tilted = one.sharpened(direction, strength)
    exact = [*tilted.mean, *(tilted.weights @ tilted.means**2 + tilted.std**2)]
    for value, function in zip(exact, (*signed.T, *(signed**2).T), strict=True):
        terms = weight * (function - value)  # of mean 0 under the tilted density
        assert abs(terms.mean() / (terms.std() / math.sqrt(n))) < 4
    own, labels = tilted.sample(n, rng)
    drawn = labels[:, None] * own
    assert (np.abs(drawn.mean(axis=0) - tilted.mean) < 4 * drawn.std(axis=0) / math.sqrt(n)).all()


def test_class_snr_is_that_of_samples():
    one = mixture(6)
    x, y = one.sample(500_000, np.random.default_rng(7))
    signed = y[:, None] * x @ (one.mean / np.linalg.norm(one.mean))
    assert one.class_snr == pytest.approx(signed.mean() / signed.std(), rel=5e-3)


def test_many_samples_teach_scikit_learn_that_direction():
    """The direction of a fit to 400,000 samples lies within its own sampling error: squared tangent < 5 V' (d - 1) / n."""
    one = mixture(8, dim=3)
    law = subpopulation_law(one)
    x, y = one.sample(400_000, np.random.default_rng(9))
    w = LogisticRegression(C=math.inf, tol=1e-9).fit(x, y).coef_[0]
    cosine = w @ law.direction / np.linalg.norm(w) / np.linalg.norm(law.direction)
    assert (1 - cosine**2) / cosine**2 < 5 * law.variance * 2 / 400_000
    assert np.linalg.norm(w) == pytest.approx(np.linalg.norm(law.direction), rel=0.02)


def test_softer_classes_lift_the_ceiling_of_averaging_and_much_sharper_ones_lower_that_of_both():
    means = [[2.5, 0.0], [0.2, 1.2]]
    real = SubpopulationMixture(means, [0.8, 0.2])

    def ceiling(strength, learner):
        return subpopulation_law(real.sharpened(means[0], strength), learner).robust_accuracy(real, 0.3)

    assert ceiling(-0.5, "averaging") > ceiling(0, "averaging") + 0.01
    assert ceiling(2, "averaging") < ceiling(0, "averaging") - 0.005
    assert ceiling(2, "logistic") < ceiling(0, "logistic") - 0.005
    sharp = real.sharpened(means[0], 2)
    assert sharp.class_snr > 2 * real.class_snr
    assert sharp.weights[1] < 0.01


def test_accuracy_after_few_samples_is_that_of_averages():
    """1,000 averages of 60 samples in 30 dimensions, their exact accuracy; the law leaves out O(1 / n + 1 / d), here 0.004."""
    means = np.zeros((2, 30))
    means[0, 0], means[1, :2] = 1.5, (0.2, 1.0)
    one, rng, n = SubpopulationMixture(means, [0.6, 0.4]), np.random.default_rng(10), 60
    law = subpopulation_law(one, "averaging")
    found = []
    for _ in range(1000):
        x, y = one.sample(n, rng)
        found.append(one.robust_accuracy(y @ x, 0.2))
    expected = law.robust_accuracy(one, 0.2, n)
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(1000) + 5e-3)
    assert law.robust_accuracy(one, 0.2) - expected > 0.02
    shrunk = one.robust_accuracy(law.direction, 0.2, 1 / math.sqrt(1 + law.variance * 28 / n))
    assert expected == pytest.approx(shrunk, rel=1e-12)


def test_a_subpopulation_without_weight_is_as_if_it_were_not_there():
    one = mixture(11)
    more = SubpopulationMixture([*one.means, [0.0, 40.0, 0.0, 0.0]], [*one.weights, 0.0], one.std)
    for learner in ("averaging", "logistic"):
        with_it, without = subpopulation_law(more, learner), subpopulation_law(one, learner)
        assert (with_it.rank, with_it.variance) == (without.rank, pytest.approx(without.variance, rel=1e-9))
        assert with_it.direction == pytest.approx(without.direction, rel=1e-7)


def test_too_few_samples_for_the_asymptotic_law_are_warned_of():
    means = np.zeros((1, 20))
    means[0, 0] = 2.0
    law = subpopulation_law(SubpopulationMixture(means))
    with pytest.warns(UserWarning, match="n=100 is too small for the law of logistic"):
        law.robust_accuracy(SubpopulationMixture(means), 0.1, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law.robust_accuracy(SubpopulationMixture(means), 0.1, 10**7)


def test_the_law_knows_its_radius_and_distances_in_standard_deviations():
    """Both decide whether n is large enough; in other units they are the same."""
    means, unit = np.zeros((2, 20)), 0.37
    means[0, 0], means[1, :2] = 2.0, (1.0, 1.5)
    one = subpopulation_law(SubpopulationMixture(means), eps=0.3)
    other = subpopulation_law(SubpopulationMixture(unit * means, std=unit), eps=0.3 * unit)
    np.testing.assert_allclose(other.distances, one.distances, rtol=1e-6)
    assert (one.eps, other.eps) == (pytest.approx(0.3), pytest.approx(0.3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SubpopulationMixture([[1.0, 0.0]], [0.5, 0.5]), "2 entries for 1 means"),
        (lambda: SubpopulationMixture([[1.0], [2.0]], [0.7, 0.7]), "sum to 1"),
        (lambda: SubpopulationMixture([[1.0], [2.0]], [1.5, -0.5]), ">= 0"),
        (lambda: SubpopulationMixture([[math.nan]]), "nan"),
        (lambda: SubpopulationMixture([[1.0]], std=0), "std=0"),
        (lambda: SubpopulationMixture([[50.0]]), "separate the classes less"),
        (lambda: SubpopulationMixture(np.zeros((0, 2))), "empty"),
        (lambda: SubpopulationMixture([[2.0, 1.0]]).sharpened([1.0, 0.0], 100), "sharpen less"),
        (lambda: SubpopulationMixture([[1.0, 1.0]]).robust_accuracy([0, 0]), "direction is zero"),
        (lambda: SubpopulationMixture([[1.0, 1.0]]).sharpened([1.0], 1), "dimensions 1 and 2"),
        (lambda: subpopulation_law(SubpopulationMixture([[1.0]]), "logistc"), "did you mean 'logistic'"),
        (lambda: subpopulation_law(SubpopulationMixture([[1.0]]), "averaging", 0.1), "does not train against"),
        (lambda: subpopulation_law(SubpopulationMixture([[1.0], [-1.0]])), "w = 0 is learned"),
        (lambda: subpopulation_law(SubpopulationMixture([[1.0]]), eps=1.0), "w = 0 is learned"),
        (
            lambda: subpopulation_law(SubpopulationMixture([[1.0]])).robust_accuracy(SubpopulationMixture([[1.0]]), n=math.nan),
            "n=nan",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("length", [1e-3, 1e-5, 1e-6])
def test_means_next_to_the_boundary_have_a_law(length):
    """Two means at right angles: V tends to that of averaging, std^2 / ||mean of the means||^2."""
    found = subpopulation_law(SubpopulationMixture(np.eye(2) * length)).variance
    assert found == pytest.approx(2 / length**2, rel=1e-5)


def test_a_radius_next_to_the_average_distance_has_a_law():
    """As its neighbours have, where the search always ended."""
    near, nearest = (
        subpopulation_law(SubpopulationMixture([[1.0, 0.0], [2.0, 0.0]]), learner="logistic", eps=1.5 - gap).variance
        for gap in (1e-5, 1e-9)
    )
    assert nearest == pytest.approx(near, rel=1e-4)
    assert nearest == pytest.approx(4 / 9, rel=1e-6)
