"""T2: the most robust classifier of a Gaussian pair, in closed form where one exists, and always certified by duality.

Primal: z* = argmin_{||z||_p <= eps} (mu - z)' Sigma^-1 (mu - z), the shift with which the adversary brings the classes closest.
Dual:   w* = argmin 1/2 w' Sigma w - w.mu + eps ||w||_q, solved by w* = Sigma^-1 (mu - z*).
With m = ||mu - z*||_{Sigma^-1}, every classifier obeys A <= pi Phi(m + b/m) + (1-pi) Phi(m - b/m), b = log(pi / (1-pi)) / 2:
if the adversary shifts both classes by z*, this is the standard Bayes accuracy of N(+-(mu - z*), Sigma). Because
w*.z* = eps ||w*||_q (optimality of z*), sign(w*.x + b) attains the bound: for any p, Sigma and prior one direction is optimal,
and unequal priors only move the threshold.
Sources: Bhagoji, Cullina, Mittal (2019), theorem 1; Dan, Wei, Ravikumar (2020); Dobriban et al. (2020) for priors in l_2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.special import ndtr

from theory._checks import Array, finite_array, non_negative, norm_order, same_dimension
from theory.elliptical import MarginCdf
from theory.extended import Extended, extended_gap, factorise, solve
from theory.linear import LinearClassifier, robust_accuracy, robust_margin, vector_norm
from theory.mixtures import BinaryMixture, usual_units

GAP_TOLERANCE = 1e-9  # largest accepted duality gap, in accuracy
SNAP = 1e-9  # relative to the size of w; smaller interior-point entries count as rounding errors
NO_ATTACK = 1e-100  # relative radius below which the attack is negligible and the solvers' multipliers would overflow
NEWTON_STEPS = 100
INTERIOR_POINT_STEPS = 100
PATIENCE = 12  # steps without progress before the certificate decides


def bayes_robust_classifier(mixture: BinaryMixture, eps: float, p: float = 2) -> LinearClassifier:
    """The classifier with the highest robust accuracy: w* = Sigma^-1 (mu - z*), b* = log(prior / (1 - prior)) / 2 (T2).

    z*: p=2 scalar: eps mu/||mu||; p=inf scalar or diagonal: mu - z* = soft(mu, eps); p=1 scalar or diagonal: weighted projection
    on the l_1 ball by sorting; p=2 otherwise: one-dimensional secular equation; p in {1, inf} with a full covariance: an
    interior-point method whose duality gap is checked to 1e-9.

    With a full covariance and p in {1, inf} the gap closes up to a condition number of 1e10, beyond 1e8 by extended precision where the
    machine has it; further on some fail (of random problems 1 in 75 at 1e11, 1 in 10 at 1e12), never without the error.
    If eps >= ||mu||_p, no classifier beats guessing: the weights are zero, with a UserWarning.
    eps: attack radius in units of x. p: 1, 2 or inf. Raises ValueError for any other p, RuntimeError if the gap does not close.
    """
    radius, order = non_negative(eps, "eps"), norm_order(p)
    if order not in (1, 2, math.inf):
        raise ValueError(f"p={p}: the optimal classifier is available for p = 1, 2 and inf; use robust_accuracy for other p")
    usual_units(mixture)
    if is_trivial(mixture, radius, order):
        warnings.warn(
            f"eps={radius:g} >= ||mean||_{order:g}={vector_norm(mixture.mean, order):g}: no classifier beats guessing, "
            "so the weights are zero; use a smaller eps",
            stacklevel=2,
        )
        return LinearClassifier(np.zeros(mixture.dim), mixture.log_odds / 2)
    if radius <= NO_ATTACK * float(np.abs(mixture.mean).max()):
        weights = mixture.covariance.solve(mixture.mean)
    elif not mixture.covariance.is_full:
        weights = _elementwise_weights(mixture.mean, mixture.covariance.variances, radius, order)
    elif order == 2:
        weights = _secular_weights(mixture, radius)
    else:
        weights = _interior_point_weights(mixture, radius, order)
    return LinearClassifier(weights, mixture.log_odds / 2)


def bayes_robust_accuracy(mixture: BinaryMixture, eps: float, p: float = 2, *, margin_cdf: MarginCdf | None = None) -> float:
    """Robust accuracy of the best classifier, A* = Phi(||mu - z*||_{Sigma^-1}) for balanced classes (T2).

    If eps >= ||mu||_p, exactly max(prior, 1 - prior), 1/2 for balanced classes. Arguments and errors as in bayes_robust_classifier.
    margin_cdf: F instead of Phi for elliptical classes (theory/elliptical.py); ValueError with unequal priors.
    """
    if margin_cdf is not None and mixture.prior != 0.5:
        raise ValueError(f"prior={mixture.prior:g}: the best rule for elliptical classes is linear only for balanced ones; use 0.5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the trivial case has an exact answer here and needs no warning
        return robust_accuracy(bayes_robust_classifier(mixture, eps, p), mixture, eps, p, margin_cdf=margin_cdf)


def is_trivial(mixture: BinaryMixture, eps: float, p: float = 2) -> bool:
    """True iff eps >= ||mu||_p: the adversary can make the classes coincide, so no classifier beats guessing (T2).

    Equality is tested up to rounding, 1e-14 relative.
    """
    return non_negative(eps, "eps") >= vector_norm(mixture.mean, norm_order(p)) * (1 - 1e-14)


def duality_gap(mixture: BinaryMixture, weights: Array, eps: float, p: float) -> float:
    """Upper minus attained accuracy of a candidate w, balanced classes: 0 iff w is optimal, an upper bound on the loss otherwise.

    Attained: Phi(m), m = (w.mu - eps ||w||_q) / sqrt(w' Sigma w). Upper: Phi(||mu - z||_{Sigma^-1}) for the shift z = mu - t Sigma w,
    t = m / sqrt(w' Sigma w), scaled into the l_p ball. The scale of w does not matter.
    Raises ValueError for zero weights, weights of the wrong dimension, eps < 0, or p < 1.
    """
    w, radius, order = finite_array(weights, "weights", 1), non_negative(eps, "eps"), norm_order(p)
    same_dimension(len(w), mixture.dim, "weights and mixture")
    if not w.any():
        raise ValueError("weights are zero: they name no direction to bound")
    w = w / np.abs(w).max()
    margin, s = robust_margin(w, mixture, radius, order)
    shift = mixture.mean - mixture.covariance.matvec(w) * (max(margin, 0.0) / s**2)
    norm = vector_norm(shift, order)
    feasible = shift * (radius / norm if norm > radius else 1.0)
    return float(ndtr(mixture.covariance.mahalanobis(mixture.mean - feasible)) - ndtr(margin / s))


def _elementwise_weights(mu: Array, variances: Array, eps: float, p: float) -> Array:
    """w* for a scalar or diagonal covariance."""
    if p == 2:
        return _secular_elementwise(mu, variances, eps)
    if math.isinf(p):
        return np.asarray(np.sign(mu) * np.maximum(np.abs(mu) - eps, 0) / variances)
    # p=1: |w_i| = min(|mu_i|/v_i, t) and z_i = sign(mu_i) max(|mu_i| - t v_i, 0); t solves sum |z_i| = eps.
    slopes = np.abs(mu) / variances
    order = np.argsort(-slopes)
    total_mu, total_v = np.cumsum(np.abs(mu)[order]), np.cumsum(variances[order])
    thresholds = (total_mu - eps) / total_v  # t if exactly the first k+1 coordinates are active
    active = max(1, int(np.count_nonzero(thresholds < slopes[order])))  # a prefix, whose last member determines t
    return np.asarray(np.sign(mu) * np.minimum(slopes, thresholds[active - 1]))


def _secular_elementwise(mu: Array, variances: Array, eps: float) -> Array:
    """p=2, diagonal: z_i = mu_i / (1 + t v_i), w = t z, with t from the secular equation ||z|| = eps."""

    def shift(t: float) -> tuple[Array, float]:
        z = mu / (1 + t * variances)
        return z, float((z * z * (variances / (1 + t * variances))).sum())

    return _solve_secular(shift, eps)


def _secular_weights(mixture: BinaryMixture, eps: float) -> Array:
    """p=2, full covariance: z = (I + t Sigma)^-1 mu, one Cholesky factorisation per Newton step."""
    cov, identity = mixture.covariance.value, np.eye(mixture.dim)

    def shift(t: float) -> tuple[Array, float]:
        factor = cholesky(identity + t * cov, lower=True, check_finite=False, overwrite_a=True)
        z = cho_solve((factor, True), mixture.mean, check_finite=False)
        return z, float(z @ cov @ cho_solve((factor, True), z, check_finite=False))

    return _solve_secular(shift, eps)


def _solve_secular(shift: Callable[[float], tuple[Array, float]], eps: float) -> Array:
    """Solve ||z(t)|| = eps, z(t) = (I + t Sigma)^-1 mu, and return w = t z.

    1/||z(t)|| is concave and increasing in t (a power mean of order -2 of the lines 1 + t v_i), so Newton from t = 0
    approaches the root from below, monotonically. shift(t) returns z and z' Sigma (I + t Sigma)^-1 z.
    """
    t = 0.0
    for _ in range(NEWTON_STEPS):
        z, curvature = shift(t)
        norm = float(np.linalg.norm(z))
        step = (norm / eps - 1) * norm**2 / curvature
        t += step
        if step <= 1e-15 * max(t, 1e-300):
            break
    else:
        warnings.warn(
            f"secular equation: relative step {step / t:.1e} after {NEWTON_STEPS} Newton steps; "
            "rescale the features to comparable variances",
            stacklevel=2,
        )
    return t * shift(t)[0]


def _interior_point_weights(mixture: BinaryMixture, eps: float, p: float) -> Array:
    """p in {1, inf}, full covariance: primal-dual interior point on the dimensionless problem, then the duality gap."""
    variance, length = mixture.covariance.trace / mixture.dim, float(np.abs(mixture.mean).max())
    weights = _interior_point(mixture.mean / length, mixture.covariance.value / variance, eps / length, p) * (length / variance)
    # Close to eps = ||mu||_p, rounding errors in w (1e-16 where it should be 0 or tied) cost accuracy: snap it, or use the limit
    # (p=inf: only the largest coordinate of mu; p=1: its signs), if that is better.
    size = np.abs(weights) / np.abs(weights).max()
    snapped = np.where(size < SNAP, 0.0, np.where(size > 1 - SNAP, np.sign(weights) * np.abs(weights).max(), weights))
    largest = np.abs(mixture.mean) == np.abs(mixture.mean).max()
    limit = np.sign(mixture.mean) * (largest if math.isinf(p) else 1.0)
    gap, weights = min(((duality_gap(mixture, w, eps, p), w) for w in (weights, snapped, limit)), key=lambda pair: pair[0])
    if not gap <= GAP_TOLERANCE:
        mean, cov = (mixture.mean / length).astype(Extended), (mixture.covariance.value / variance).astype(Extended)
        weights = np.asarray(_interior_point(mean, cov, eps / length, p), dtype=np.float64) * (length / variance)
        gap = extended_gap(mixture.mean, mixture.covariance.value, weights, eps, p)
    if not gap <= GAP_TOLERANCE:
        raise RuntimeError(
            f"optimal classifier for p={p:g}: the interior-point method left a duality gap of {gap:.1e} in accuracy, above "
            f"{GAP_TOLERANCE:.0e}; rescale the features or add to the diagonal of the covariance"
        )
    # Of any scale the direction is the same, but with unequal priors the bias holds for Sigma^-1 (mu - z*) alone: w' Sigma w = margin.
    margin, s = robust_margin(weights, mixture, eps, p)
    rounding = float(np.finfo(np.float64).eps * np.abs(weights * mixture.mean).sum())
    return np.asarray(weights * (max(margin, rounding) / s**2))


def _interior_point(mu: Array, cov: Array, eps: float, p: float) -> Array:
    """argmin_w 1/2 w' Sigma w - w.mu + eps sum(t) subject to -t <= w <= t; one shared t for p=1, one per coordinate for p=inf.

    The multipliers a, b >= 0 of the two bounds give the adversary's shift z = a - b, with sum(a + b) = eps (p=1) or
    a + b = eps (p=inf). Mehrotra's predictor-corrector (Nocedal and Wright 2006, section 16.6); each step factorises one
    d x d matrix, Sigma plus a diagonal. We use our own code because p=1 would need scipy's lsq_linear inside a root search. For p=inf,
    lsq_linear misses the gap of 1e-9 on 4 % of random problems with condition 1 to 1e6, and takes 4 to 8 s at d = 1,000 if they are
    ill-conditioned (this code: none of 30,000, and about 1 s).
    """
    d, shared = len(mu), p == 1
    start = solve(factorise(cov), mu)  # the solution at eps = 0 bounds the size of w: start half-way, with slack of that size
    w, t = start / 2, np.full(1 if shared else d, np.abs(start).max(), dtype=mu.dtype)
    a = np.full(d, eps / (2 * d) if shared else eps / 2, dtype=mu.dtype)
    b = a.copy()
    residual, best, stalled = math.inf, math.inf, 0
    upper, lower = t - w, t + w  # slacks t - w, t + w > 0, updated step by step because recomputing them would cancel
    for _ in range(INTERIOR_POINT_STEPS):
        residual_w = cov @ w - mu + a - b
        gap, previous, residual = float(a @ upper + b @ lower), residual, float(np.abs(residual_w).max())
        stalled = 0 if gap < 0.9 * best else stalled + 1
        best = min(best, gap)
        size = float(w @ cov @ w)
        settled = gap <= 1e-13 * size and 0.5 * previous <= residual < 1e-3  # complementary, and stationary up to rounding
        if settled or stalled == PATIENCE or gap <= 1e-25 * size:
            break  # further steps would only add noise; the duality gap judges the result
        residual_t = eps - (a + b).sum(keepdims=True) if shared else eps - a - b
        newton = _newton_system(cov, a / upper, b / lower, residual_w, residual_t)
        da, db, du, dl = newton(-a, -b)[:4]  # predictor: aim at complementarity 0
        reach = _step_length((a, da), (b, db), (upper, du), (lower, dl))
        after = (a + reach * da) @ (upper + reach * du) + (b + reach * db) @ (lower + reach * dl)
        target = (after / gap) ** 3 * gap / (2 * d)
        trust = float(reach > 0.1)  # after a short predictor step its second-order terms are misleading, and the iterates can cycle
        c_a, c_b = (target - trust * da * du) / upper - a, (target - trust * db * dl) / lower - b
        da, db, du, dl, dw, dt = newton(c_a, c_b)  # corrector
        reach = 0.995 * _step_length((a, da), (b, db), (upper, du), (lower, dl))
        a, b, upper, lower = a + reach * da, b + reach * db, upper + reach * du, lower + reach * dl
        w, t = w + reach * dw, t + reach * dt
    return np.asarray(w)


def _newton_system(
    cov: Array, ratio_a: Array, ratio_b: Array, residual_w: Array, residual_t: Array
) -> Callable[[Array, Array], tuple[Array, ...]]:
    """Factorise one Newton step of `_interior_point`; returns (c_a, c_b) -> (da, db, du, dl, dw, dt).

    da = c_a - A du, db = c_b - B dl with A = a/u, B = b/l, du = dt - dw, dl = dt + dw eliminates all but dw and dt:
    (Sigma + A + B) dw - (A - B) dt = g,   sum or entries of (A + B) dt - (A - B) dw = h.
    """
    total, difference = ratio_a + ratio_b, ratio_a - ratio_b
    shared = len(residual_t) < len(ratio_a)
    diagonal = total if shared else 4 * ratio_a * ratio_b / total
    matrix = cov.copy()
    matrix[np.diag_indices_from(matrix)] += diagonal
    factor = factorise(matrix)

    if shared:
        # The Schur complement sum(A + B) - (A - B)' M^-1 (A - B), M = Sigma + A + B, without cancellation:
        # sum 4AB/(A + B) + r' Sigma M^-1 (A - B), r = (A - B)/(A + B).
        border = solve(factor, difference)
        schur = (4 * ratio_a * ratio_b / total).sum() + (cov @ (difference / total)) @ border

    def newton(c_a: Array, c_b: Array) -> tuple[Array, ...]:
        g = c_b - c_a - residual_w
        if shared:
            dt = ((c_a + c_b).sum() - residual_t + border @ g) / schur
            dw = solve(factor, g) + border * dt
        else:
            h = c_a + c_b - residual_t
            dw = solve(factor, g + difference * h / total)
            dt = (h + difference * dw) / total
        du, dl = dt - dw, dt + dw
        return c_a - ratio_a * du, c_b - ratio_b * dl, du, dl, dw, dt

    return newton


def _step_length(*pairs: tuple[Array, Array]) -> float:
    """Largest step in (0, 1] that keeps every value + step * change >= 0."""
    return min([1.0, *(float((-value[change < 0] / change[change < 0]).min(initial=1.0)) for value, change in pairs)])
