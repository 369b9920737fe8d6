"""Speed of the theory, as ratios measured in one run: `make bench`.

1. The exact averaging law against Monte Carlo at equal error: how long Monte Carlo takes to bring the standard error of E[A] down to
   1e-2, 1e-3 and 1e-4, in units of the time of one exact evaluation (which is good to 1e-11). The Monte Carlo is as fast as it gets:
   vectorised, it draws the averaged direction's samples and takes each fit's exact robust accuracy.
2. Laws for any number of samples, in units of one fit by scikit-learn (d = 200, n = 2,000, ridge 0.001).
3. The optimal classifier (T2) against the dimension, in units of one Cholesky factorisation (full covariance) or one sort of d numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import cholesky
from scipy.special import ndtr
from sklearn.linear_model import LogisticRegression

from command_line.output import text_table
from theory import (
    AveragingLaw,
    BinaryMixture,
    GaussianMixture,
    ProportionalLaw,
    bayes_robust_classifier,
    multiclass_robust_accuracy,
    optimal_class_snr,
    optimal_half_distance,
)

DIM, N, EPS = 20, 5, 0.5


def best_time(call: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def monte_carlo(mixture: BinaryMixture, error: float, rng: np.random.Generator) -> tuple[float, int, float]:
    """Sample data sets in batches until the standard error of the mean is below `error`: (mean, data sets, standard error)."""
    total = squares = 0.0
    count, batch = 0, 50
    while True:
        signed = mixture.mean + mixture.covariance.sample(batch * N, rng).reshape(batch, N, DIM)  # y x
        theta = signed.mean(axis=1)
        cosine = theta @ mixture.mean / np.linalg.norm(theta, axis=1)
        accuracy = ndtr((cosine - EPS) / math.sqrt(float(mixture.cov)))
        total, squares, count = total + float(accuracy.sum()), squares + float((accuracy**2).sum()), count + batch
        standard_error = math.sqrt(max(squares / count - (total / count) ** 2, 0) / count)
        if standard_error < error:
            return total / count, count, standard_error
        batch = 2000


def bench_law() -> None:
    mixture = BinaryMixture(np.eye(DIM)[0] * 2)
    exact = AveragingLaw(mixture, mixture, N, EPS).mean()
    seconds = best_time(lambda: AveragingLaw(mixture, mixture, N, EPS).mean(), 20)
    rows = [("exact law (error 1e-11)", "1", "-", f"{1e3 * seconds:.2f} ms")]
    for error in (1e-2, 1e-3, 1e-4):
        mean, count, standard_error = monte_carlo(mixture, error, np.random.default_rng(0))
        duration = best_time(lambda error=error: monte_carlo(mixture, error, np.random.default_rng(0)), 3)  # type: ignore[misc]
        if abs(mean - exact) > 5 * standard_error:
            raise SystemExit(f"Monte Carlo mean {mean} disagrees with the exact law {exact}")
        rows.append((f"Monte Carlo to {error:.0e}", f"{duration / seconds:.3g}", str(count), f"{1e3 * duration:.2f} ms"))
    print(text_table((f"E[robust accuracy], d={DIM}, n={N}", "time / exact", "data sets", "time"), rows))


def bench_laws() -> None:
    rng, dim, n = np.random.default_rng(0), 200, 2000
    y = rng.choice([-1.0, 1.0], n)
    x = rng.standard_normal((n, dim)) + 1.2 * y[:, None] * np.eye(dim)[0]
    fit = LogisticRegression(C=1 / (0.001 * n), solver="newton-cholesky", fit_intercept=False)
    unit = best_time(lambda: fit.fit(x, y), 3)
    real, rotated = BinaryMixture(np.eye(DIM)[0] * 2), BinaryMixture(np.eye(DIM)[0] + np.eye(DIM)[1])
    simplex, biases = GaussianMixture(2 * np.eye(10), 1.0), np.zeros(10)
    laws: dict[str, Callable[[], object]] = {
        "T4 mean, misaligned, d=20": lambda: AveragingLaw(real, rotated, 50, EPS).mean(),
        "T9 ten classes": lambda: multiclass_robust_accuracy(simplex.means, biases, simplex, 0.3),
        "T13 best half distance, ten classes": lambda: optimal_half_distance(10),
        "T16 logistic, ridge 0.001, n/d=10": lambda: ProportionalLaw(1.2, 10, ridge=0.001).alignment,
        "T16 logistic, no ridge, n/d=10": lambda: ProportionalLaw(1.2, 10).alignment,
        "T16 hard margin, n/d=2": lambda: ProportionalLaw(3.0, 2).alignment,
        "T16 best class SNR, n/d=10": lambda: optimal_class_snr(samples_per_dim=10),
    }
    rows = [("one fit, d=200, n=2000", "1", f"{1e3 * unit:.1f} ms")]
    for name, law in laws.items():
        seconds = best_time(law, 3)
        rows.append((name, f"{seconds / unit:.3g}", f"{1e3 * seconds:.2f} ms"))
    print(text_table(("law", "time / fit", "time"), rows))


def bench_optimum() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for dim in (250, 500, 1000, 2000, 4000):
        factor = rng.standard_normal((dim, 2 * dim))
        cov = factor @ factor.T / (2 * dim)
        mixture = BinaryMixture(rng.standard_normal(dim), cov)
        unit = best_time(lambda cov=cov: cholesky(cov, lower=True), 2)  # type: ignore[misc]
        rows.append((f"full, d={dim}", *_times(mixture, unit, "Cholesky", 1 if dim > 1000 else 2)))
    for dim in (10_000, 1_000_000):
        for name, variances in (("scalar", np.array(1.5)), ("diagonal", rng.uniform(0.5, 2, dim))):
            mixture = BinaryMixture(rng.standard_normal(dim) / 100, variances)
            unit = best_time(lambda m=mixture: np.sort(m.mean), 2)  # type: ignore[misc]
            rows.append((f"{name}, d={dim}", *_times(mixture, unit, "sort", 2)))
    print(text_table(("optimal classifier (T2)", "unit", "p=1", "p=2", "p=inf", "slowest"), rows))


def _times(mixture: BinaryMixture, unit: float, name: str, repeats: int) -> tuple[str, ...]:
    seconds = []
    for p in (1, 2, math.inf):
        eps = 0.4 * float(np.linalg.norm(mixture.mean, p))
        seconds.append(best_time(lambda p=p, eps=eps: bayes_robust_classifier(mixture, eps, p), repeats))  # type: ignore[misc]
    return f"{name} {1e3 * unit:.3g} ms", *(f"{t / unit:.3g}" for t in seconds), f"{max(seconds):.3g} s"


if __name__ == "__main__":
    bench_law()
    print()
    bench_laws()
    print()
    bench_optimum()
