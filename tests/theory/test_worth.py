"""What one sample is worth in samples of another kind: exact cases, inverses, and fits."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from theory import ProportionalLaw, sample_worth


@pytest.mark.parametrize("seed", range(4))
def test_averaging_alone_is_the_squared_ratio_of_class_snrs(seed):
    """T4: classes c times as distinguishable are worth c^2 times the samples, at any number of samples per dimension."""
    rng = np.random.default_rng(seed)
    k, other, ratio = rng.uniform(0.3, 3, 3)
    found = sample_worth(ProportionalLaw(k, ratio, "averaging"), ProportionalLaw(other, 7.0, "averaging"))
    assert found == pytest.approx((k / other) ** 2, rel=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_law_itself_at_the_number_found_has_the_same_angle(seed):
    """Real samples beside both kinds, wrong labels among each; and the worth the other way round is the inverse, at the number found."""
    rng = np.random.default_rng(seed)
    real, snr, other = rng.uniform(1, 3), *rng.uniform(1.5, 4, 2)
    noise, noise_other = rng.uniform(0.02, 0.2, 2)
    offered = ProportionalLaw((real, snr), (8.0, 40.0), label_noise=(0.0, noise))
    plain = ProportionalLaw((real, other), (8.0, 1.0), label_noise=(0.0, noise_other))
    worth = sample_worth(offered, plain)
    as_many = ProportionalLaw((real, other), (8.0, 40.0 * worth), label_noise=(0.0, noise_other))
    assert as_many.alignment == pytest.approx(offered.alignment, abs=1e-9)
    assert sample_worth(as_many, offered) == pytest.approx(1 / worth, rel=1e-6)


def test_fits_of_so_many_plain_samples_learn_the_direction_as_well():
    """100 dimensions, 10 real samples per dimension, 20 offered ones, one label in ten wrong: 12 fits of each, |z| < 4."""
    rng, d = np.random.default_rng(5), 100
    offered = ProportionalLaw((1.5, 1.2), (10.0, 20.0), label_noise=(0.0, 0.05))
    worth = sample_worth(offered, ProportionalLaw((1.5, 2.5), (10.0, 20.0), label_noise=(0.0, 0.1)))
    assert abs(math.log(worth)) > 0.4  # far enough from 1 that equal numbers would be told apart

    def log_tangent(snr, n, wrong):
        y = rng.choice([-1.0, 1.0], 10 * d + n)
        x = rng.standard_normal((len(y), d))
        x[:, 0] += y * np.repeat([1.5, snr], [10 * d, n])
        y[10 * d :] *= np.where(rng.random(n) < wrong, -1, 1)
        w = LogisticRegression(C=math.inf, max_iter=300, tol=1e-6).fit(x, y).coef_[0]
        return math.log(np.linalg.norm(w[1:]) / w[0])

    first = np.array([log_tangent(1.2, 20 * d, 0.05) for _ in range(12)])
    second = np.array([log_tangent(2.5, round(20 * d * worth), 0.1) for _ in range(12)])
    error = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 12)
    assert abs(first.mean() - second.mean()) < 4 * error
    equal = np.array([log_tangent(2.5, 20 * d, 0.1) for _ in range(12)])
    assert abs(first.mean() - equal.mean()) > 8 * error


@pytest.mark.parametrize("noise", [0.0005, 0.002, 0.02])
def test_where_the_angle_rises_with_the_number_the_nearest_solution_is_found(noise):
    """Real samples that are separable, and a few wrong labels beside them: the angle rises to a peak before it falls."""
    plain = ProportionalLaw((4.67, 4.67), (7.25, 48.4), label_noise=(0.0, noise))
    assert sample_worth(plain, plain) == 1
    few = ProportionalLaw((4.67, 4.9), (7.25, 6.0), label_noise=(0.0, noise))

    def gap(log_worth):
        as_many = ProportionalLaw((4.67, 4.67), (7.25, 6.0 * math.exp(log_worth)), label_noise=(0.0, noise))
        return math.log(as_many.across / as_many.along) - math.log(few.across / few.along)

    found = math.log(sample_worth(few, plain))
    assert abs(gap(found)) < 1e-7
    nearer = [gap(at) for at in np.linspace(-abs(found), abs(found), 41)[1:-1]]
    assert min(nearer) > 0 or max(nearer) < 0


def test_what_cannot_be_made_up_for_and_bad_laws():
    clean, wrong = ProportionalLaw(2.0, 1e6), ProportionalLaw(2.0, 50.0, label_noise=0.45)
    assert sample_worth(clean, wrong) > 10
    assert sample_worth(ProportionalLaw(20.0, 5.0, "averaging"), ProportionalLaw(0.1, 5.0, "averaging")) == math.inf
    assert sample_worth(ProportionalLaw(0.1, 5.0, "averaging"), ProportionalLaw(20.0, 5.0, "averaging")) == 0
    few = ProportionalLaw(0.5, 0.5, "averaging")  # a thousandth of half a sample per dimension is outside of the law
    assert sample_worth(few, ProportionalLaw(20.0, 0.5, "averaging")) == 0
    assert sample_worth(few, ProportionalLaw(5.0, 0.5, "averaging")) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="offered has 2 parts and plain 1: give the same others"):
        sample_worth(ProportionalLaw((1.0, 2.0), (3.0, 4.0)), ProportionalLaw(1.0, 3.0))


def test_a_law_that_ends_on_one_side_is_searched_on_the_other():
    """LDA, tan^2 = (1 + k^2) / (k^2 (n/d - 1)): 26 / (5 w - 1) = 1.01 / 4. Downwards the law ends at n = d."""
    found = sample_worth(ProportionalLaw(10.0, 5.0, "lda"), ProportionalLaw(0.2, 5.0, "lda"))
    assert found == pytest.approx((26 * 4 / 1.01 + 1) / 5, rel=1e-6)
    # and a solution between the last step with a law and its end
    found = sample_worth(ProportionalLaw(1.0, 1.1, "lda"), ProportionalLaw(1.5, 1.1, "lda"))
    assert found == pytest.approx((1 + 3.25 / 2.25 / 20) / 1.1, rel=1e-6)
