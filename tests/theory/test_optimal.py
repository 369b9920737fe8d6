"""T2 against duality, other solvers, random classifiers and the special cases in closed form."""

import contextlib
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize
from scipy.stats import norm

from tests.theory.conftest import KINDS, random_mixture
from theory import (
    BinaryMixture,
    LinearClassifier,
    bayes_robust_accuracy,
    bayes_robust_classifier,
    duality_gap,
    is_trivial,
    robust_accuracy,
)

FRACTIONS = (0.0, 1e-6, 0.2, 0.7, 0.999)


def radius(mixture, p, fraction):
    return fraction * np.linalg.norm(mixture.mean, p)


@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_beats_a_thousand_random_classifiers_and_equals_its_own_classifier(kind, p, prior):
    rng = np.random.default_rng(0)
    for dim in (1, 2, 7, 20):
        mixture = random_mixture(kind, dim, 10, prior)
        eps = radius(mixture, p, 0.4)
        best, classifier = bayes_robust_accuracy(mixture, eps, p), bayes_robust_classifier(mixture, eps, p)
        assert best == pytest.approx(robust_accuracy(classifier, mixture, eps, p), abs=1e-9)
        for i in range(1000):
            near = classifier.weights * (1 + 0.1 * rng.standard_normal(dim))  # half of them close to the optimum
            w = near if i % 2 else rng.standard_normal(dim)
            rival = LinearClassifier(w / np.linalg.norm(w), rng.normal(0, 0.5))
            assert robust_accuracy(rival, mixture, eps, p) <= best + 1e-12


def test_duality_gap_is_closed(kind, p):
    for dim, condition in ((1, 1.0), (3, 1e4), (40, 1e6)):
        mixture = random_mixture(kind, dim, 11, condition=condition)
        for fraction in FRACTIONS:
            eps = radius(mixture, p, fraction)
            w = bayes_robust_classifier(mixture, eps, p).weights
            assert -1e-12 < duality_gap(mixture, w, eps, p) < 1e-9


def test_duality_gap_bounds_the_loss_of_a_bad_direction(p):
    mixture = random_mixture("full", 6, 12)
    eps = radius(mixture, p, 0.3)
    w = bayes_robust_classifier(mixture, eps, p).weights * np.array([1, 1.3, 1, 0.8, 1, 1])
    loss = bayes_robust_accuracy(mixture, eps, p) - robust_accuracy(LinearClassifier(w), mixture, eps, p)
    assert loss > 1e-5
    assert duality_gap(mixture, w, eps, p) >= loss


def test_box_problem_matches_scipys_solver():
    for seed in range(5):
        mixture = random_mixture("full", 15, seed)
        eps = radius(mixture, np.inf, 0.3)
        root = np.linalg.inv(np.linalg.cholesky(mixture.cov))
        solution = lsq_linear(root, root @ mixture.mean, bounds=(-eps, eps), method="bvls", tol=1e-14)
        distance = np.linalg.norm(root @ (mixture.mean - solution.x))
        assert bayes_robust_accuracy(mixture, eps, np.inf) == pytest.approx(norm.cdf(distance), abs=1e-10)


def test_l1_problem_matches_a_general_solver():
    for seed in range(3):
        mixture = random_mixture("full", 6, seed, condition=5)
        eps = radius(mixture, 1, 0.3)
        precision = np.linalg.inv(mixture.cov)

        def objective(v, precision=precision, mean=mixture.mean):
            r = mean - v[:6] + v[6:]
            return r @ precision @ r, 2 * np.concatenate([-precision @ r, precision @ r])

        inside = {"type": "ineq", "fun": lambda v, eps=eps: eps - v.sum(), "jac": lambda v: -np.ones(12)}
        found = minimize(
            objective, np.full(12, eps / 20), jac=True, bounds=[(0, None)] * 12, constraints=inside, method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert bayes_robust_accuracy(mixture, eps, 1) == pytest.approx(norm.cdf(math.sqrt(found.fun)), abs=1e-6)


def test_closed_forms():
    mean, sigma = np.array([1.0, -2.0, 0.3, 0.05]), 1.7
    isotropic = BinaryMixture(mean, sigma**2)
    eps = 0.4
    assert bayes_robust_accuracy(isotropic, eps, 2) == pytest.approx(norm.cdf((np.linalg.norm(mean) - eps) / sigma), abs=1e-14)
    soft = np.sign(mean) * np.maximum(np.abs(mean) - eps, 0)
    assert bayes_robust_accuracy(isotropic, eps, np.inf) == pytest.approx(norm.cdf(np.linalg.norm(soft) / sigma), abs=1e-14)
    variances = np.array([0.5, 2.0, 1.0, 3.0])
    w = bayes_robust_classifier(BinaryMixture(mean, variances), eps, np.inf).weights
    np.testing.assert_allclose(w, soft / variances, rtol=1e-14)


def test_full_storage_of_a_diagonal_covariance_gives_the_diagonal_answer(p):
    mixture = random_mixture("diagonal", 9, 13, prior=0.4)
    full = BinaryMixture(mixture.mean, np.diag(mixture.cov), 0.4)
    eps = radius(mixture, p, 0.35)
    assert bayes_robust_accuracy(full, eps, p) == pytest.approx(bayes_robust_accuracy(mixture, eps, p), abs=1e-12)


def test_unequal_priors_attain_the_bound(kind, p):
    """pi Phi(m + b/m) + (1 - pi) Phi(m - b/m) is the plain Bayes accuracy against a fixed adversary: no classifier exceeds it."""
    mixture = random_mixture(kind, 8, 14, prior=0.15)
    eps = radius(mixture, p, 0.3)
    classifier = bayes_robust_classifier(mixture, eps, p)
    m = math.sqrt(mixture.covariance.quadratic(classifier.weights))  # ||mu - z*||_{Sigma^-1}
    b = math.log(0.15 / 0.85) / 2
    bound = 0.15 * norm.cdf(m + b / m) + 0.85 * norm.cdf(m - b / m)
    assert bayes_robust_accuracy(mixture, eps, p) == pytest.approx(bound, abs=1e-9)


@pytest.mark.parametrize("factor", [1.0, 1.5, 100.0])
def test_trivial_radius_is_said_plainly(kind, p, factor):
    mixture = random_mixture(kind, 5, 15)
    eps = factor * np.linalg.norm(mixture.mean, p)
    assert is_trivial(mixture, eps, p)
    assert bayes_robust_accuracy(mixture, eps, p) == 0.5
    with pytest.warns(UserWarning, match="no classifier beats guessing"):
        assert not bayes_robust_classifier(mixture, eps, p).weights.any()
    skewed = BinaryMixture(mixture.mean, mixture.cov, 0.2)
    assert bayes_robust_accuracy(skewed, eps, p) == pytest.approx(0.8, abs=1e-15)


def test_just_below_the_trivial_radius_robustness_is_possible(kind, p):
    mixture = random_mixture(kind, 5, 16)
    assert 0.5 < bayes_robust_accuracy(mixture, 0.999999 * np.linalg.norm(mixture.mean, p), p) < 0.51


@pytest.mark.parametrize("sigma", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(kind, p, sigma):
    mixture = random_mixture(kind, 6, 17, prior=0.45)
    eps = radius(mixture, p, 0.3)
    scaled = BinaryMixture(sigma * mixture.mean, sigma**2 * mixture.cov, 0.45)
    assert bayes_robust_accuracy(scaled, sigma * eps, p) == pytest.approx(bayes_robust_accuracy(mixture, eps, p), abs=1e-10)


def test_tiny_and_huge_noise(p):
    mean = np.array([0.5, -1.0, 0.2])
    eps = 0.3 * np.linalg.norm(mean, p)
    assert bayes_robust_accuracy(BinaryMixture(mean, 1e-12), eps, p) == 1.0
    assert bayes_robust_accuracy(BinaryMixture(mean, 1e12), eps, p) == pytest.approx(0.5, abs=1e-6)


def test_no_square_matrix_for_scalar_and_diagonal(p):
    dim = 200_000  # a square matrix would take 320 GB
    mean = np.random.default_rng(0).standard_normal(dim) / 300
    for cov in (1.0, np.linspace(0.5, 2, dim)):
        tracemalloc.start()
        mixture = BinaryMixture(mean, cov)
        bayes_robust_classifier(mixture, 0.3 * np.linalg.norm(mean, p), p)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * dim * 8


mixtures = st.builds(
    random_mixture, st.sampled_from(KINDS), st.integers(1, 8), st.integers(0, 10_000), st.floats(0.05, 0.95), st.floats(1, 1000)
)
norms = st.sampled_from([1, 2, np.inf])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mixtures, norms, st.floats(0, 0.95), st.floats(0, 0.95))
def test_accuracy_falls_with_eps(mixture, p, first, second):
    low, high = sorted((radius(mixture, p, first), radius(mixture, p, second)))
    assert bayes_robust_accuracy(mixture, low, p) >= bayes_robust_accuracy(mixture, high, p) - 1e-10


@settings(max_examples=40, deadline=None, derandomize=True)
@given(mixtures, norms, st.floats(0, 0.95), st.integers(0, 100))
def test_permutation_and_signs_do_not_matter(mixture, p, fraction, seed):
    rng = np.random.default_rng(seed)
    order, sign = rng.permutation(mixture.dim), rng.choice([-1.0, 1.0], mixture.dim)
    cov = mixture.cov if mixture.cov.ndim == 0 else mixture.cov[order]
    cov = sign[:, None] * cov[:, order] * sign if cov.ndim == 2 else cov
    moved = BinaryMixture(sign * mixture.mean[order], cov, mixture.prior)
    eps = radius(mixture, p, fraction)
    assert bayes_robust_accuracy(moved, eps, p) == pytest.approx(bayes_robust_accuracy(mixture, eps, p), abs=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 8), st.integers(0, 10_000), st.floats(0, 0.95))
def test_rotation_does_not_matter_in_l2(dim, seed, fraction):
    mixture = random_mixture("full", dim, seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((dim, dim)))[0]
    cov = rotation @ mixture.cov @ rotation.T
    moved = BinaryMixture(rotation @ mixture.mean, (cov + cov.T) / 2)
    eps = radius(mixture, 2, fraction)
    assert bayes_robust_accuracy(moved, eps, 2) == pytest.approx(bayes_robust_accuracy(mixture, eps, 2), abs=1e-9)


def test_norms_are_ordered():
    """l_1 ball inside l_2 ball inside l_inf ball: the larger the ball, the lower the accuracy."""
    for kind in KINDS:
        mixture = random_mixture(kind, 6, 18)
        a1, a2, ainf = (bayes_robust_accuracy(mixture, 0.3, p) for p in (1, 2, np.inf))
        assert a1 > a2 > ainf


def test_unsupported_norm_names_the_remedy():
    with pytest.raises(ValueError, match=r"p=3.*robust_accuracy"):
        bayes_robust_classifier(BinaryMixture([1.0]), 0.1, 3)


def test_a_hopeless_covariance_raises_instead_of_guessing():
    """Condition number 1e15: either certified or refused, never silently wrong."""
    mixture = random_mixture("full", 30, 19, condition=1e13)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for p in (1, np.inf):
            eps = radius(mixture, p, 0.5)
            with contextlib.suppress(RuntimeError):  # refused: fine
                w = bayes_robust_classifier(mixture, eps, p).weights
                assert duality_gap(mixture, w, eps, p) <= 1e-9


@pytest.mark.parametrize("seed", [249, 345, 379])
def test_problems_on_which_an_unguarded_corrector_cycles(seed):
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(4, 13))
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    cov = (basis * np.geomspace(1, 1e5, dim)) @ basis.T
    mixture = BinaryMixture(rng.standard_normal(dim), (cov + cov.T) / 2)
    eps = 0.1 * np.abs(mixture.mean).max()
    assert duality_gap(mixture, bayes_robust_classifier(mixture, eps, np.inf).weights, eps, np.inf) < 1e-9


def test_another_problem_on_which_it_cycles():
    rng = np.random.default_rng(1169)
    dim, condition = int(rng.integers(2, 30)), 10 ** rng.uniform(0, 6)
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    cov = (basis * np.geomspace(1, condition, dim)) @ basis.T
    mixture = BinaryMixture(rng.standard_normal(dim), (cov + cov.T) / 2)
    assert bayes_robust_accuracy(mixture, radius(mixture, 1, 0.1), 1) > 0.5


@pytest.mark.parametrize("digits", range(1, 14))
def test_up_to_the_trivial_radius(kind, p, digits):
    for seed in range(5):
        mixture = random_mixture(kind, 4, seed)
        eps = np.linalg.norm(mixture.mean, p) * (1 - 10.0**-digits)
        accuracy = bayes_robust_accuracy(mixture, eps, p)
        assert 0.5 <= accuracy < 0.5 + 10.0 ** (1 - digits) + 1e-9
        assert duality_gap(mixture, bayes_robust_classifier(mixture, eps, p).weights, eps, p) < 1e-9


@pytest.mark.parametrize("p", [1, np.inf])
@pytest.mark.parametrize("noise", [1e-1, 1e-3])
def test_a_wrong_solution_is_refused(monkeypatch, p, noise):
    """The certificate, not the solver, decides: weights off by `noise` leave a gap of order noise^2 and are not returned."""
    from theory import optimal

    mixture = random_mixture("full", 5, 40, condition=3)
    solve = optimal._interior_point
    monkeypatch.setattr(optimal, "_interior_point", lambda *a: solve(*a) * (1 + noise * np.array([1, -1, 1, -1, 1])))
    with pytest.raises(RuntimeError, match="duality gap"):
        bayes_robust_classifier(mixture, radius(mixture, p, 0.3), p)


def test_duality_gap_speaks_of_balanced_classes_and_ignores_the_scale():
    mixture = random_mixture("full", 5, 41, prior=0.2)
    balanced = BinaryMixture(mixture.mean, mixture.cov)
    w = np.random.default_rng(0).standard_normal(5) + mixture.mean
    gap = duality_gap(mixture, w, 0.1, 2)
    assert gap > 1e-3
    assert gap == pytest.approx(duality_gap(balanced, 1e6 * w, 0.1, 2), abs=1e-12)


def test_secular_shift_lies_on_the_sphere():
    for kind in ("diagonal", "full"):
        for fraction in (0.01, 0.3, 0.9):
            mixture = random_mixture(kind, 12, 42, condition=1e4)
            eps = radius(mixture, 2, fraction)
            shift = mixture.mean - mixture.covariance.matvec(bayes_robust_classifier(mixture, eps, 2).weights)
            assert np.linalg.norm(shift) == pytest.approx(eps, rel=1e-10)


@pytest.mark.parametrize("p", [1, math.inf])
@pytest.mark.parametrize("seed", range(25))
def test_ill_conditioned_problems_whose_solution_is_known(p, seed):
    """mu = z + Sigma w with z and w complementary, condition 1e10: accuracy Phi(sqrt(w' Sigma w))."""
    rng = np.random.default_rng([seed, 7])
    dim = int(rng.integers(3, 30))
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    sizes = 10 ** rng.uniform(-5, 5, dim)
    sizes[:2] = 1e-5, 1e5
    cov = (axes * sizes) @ axes.T
    cov = (cov + cov.T) / 2
    w, eps = rng.standard_normal(dim), 0.3
    active = rng.random(dim) < 0.5
    active[0] = True
    if p == 1:  # z != 0 only where |w| is largest
        w = np.where(active, np.sign(w) * np.abs(w).max(), w)
        z = np.where(active, np.sign(w) * rng.random(dim), 0.0)
        z *= eps / np.abs(z).sum()
    else:  # |z| < eps only where w = 0
        w = np.where(active, w, 0.0)
        z = np.where(active, eps * np.sign(w), rng.uniform(-eps, eps, dim))
    w *= rng.uniform(0.5, 3) / math.sqrt(w @ cov @ w)
    mixture = BinaryMixture(z + cov @ w, cov)
    assert bayes_robust_accuracy(mixture, eps, p) == pytest.approx(norm.cdf(math.sqrt(w @ cov @ w)), abs=2e-9)


def exact_gap(mixture, weights, eps, p):
    """The duality gap in 60 digits."""
    from mpmath import lu_solve, matrix, mp

    mp.dps = 60
    sigma, mu = matrix(mixture.cov.tolist()), matrix(mixture.mean.tolist())
    w = matrix((weights / np.abs(weights).max()).tolist())
    spread = (w.T * sigma * w)[0]
    margin = (w.T * mu)[0] - eps * (max(map(abs, w)) if p == 1 else sum(map(abs, w)))
    shift = mu - sigma * w * (margin / spread)
    size = sum(map(abs, shift)) if p == 1 else max(map(abs, shift))
    left = mu - shift * min(1, eps / size)
    return float(mp.ncdf(mp.sqrt((left.T * lu_solve(sigma, left))[0])) - mp.ncdf(margin / mp.sqrt(spread)))


@pytest.mark.parametrize("seed", range(40))
def test_condition_1e10_is_certified_in_60_digits(seed):
    """Random problems; without extended precision every sixth raises."""
    rng = np.random.default_rng([seed, 100])
    dim, p = int(rng.integers(3, 25)), float(rng.choice([1, math.inf]))
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    sizes = 10 ** rng.uniform(-5, 5, dim)
    sizes[:2] = 1e-5, 1e5
    cov = (axes * sizes) @ axes.T
    mixture = BinaryMixture(rng.standard_normal(dim), (cov + cov.T) / 2)
    eps = float(rng.uniform(0.02, 0.98)) * float(np.linalg.norm(mixture.mean, p))
    assert -1e-15 <= exact_gap(mixture, bayes_robust_classifier(mixture, eps, p).weights, eps, p) < 2e-9


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_next_to_the_largest_radius_unequal_priors_are_not_worse_than_guessing(p):
    """The bias belongs to w = Sigma^-1 (mu - z*), whose w' Sigma w is its margin: a w of another scale lost up to 0.36."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        root = rng.standard_normal((3, 3))
        mixture = BinaryMixture(rng.standard_normal(3), root @ root.T + 0.3 * np.eye(3), 0.9)
        eps = (1 - 10 ** rng.uniform(-7, -3)) * np.linalg.norm(mixture.mean, p)
        best, w = bayes_robust_accuracy(mixture, eps, p), bayes_robust_classifier(mixture, eps, p).weights
        assert best >= 0.9 - 1e-9
        margin = w @ mixture.mean - eps * np.linalg.norm(w, 1 if math.isinf(p) else math.inf)
        assert w @ mixture.cov @ w == pytest.approx(margin, rel=1e-5)
