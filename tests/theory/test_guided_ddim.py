"""Gaussian closure: exact for affine noise predictions, close for nonlinear ones, its nodes standardised."""

import itertools

import numpy as np
import pytest

from theory import GaussianMixture, ddim_law, gaussian_nodes, guided_ddim_law

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def visited(steps):
    return np.append(ALPHA_BAR[np.linspace(999, 0, steps).astype(int)], 1.0)


@pytest.fixture
def mixture():
    rng = np.random.default_rng(3)
    root = rng.standard_normal((2, 3, 3))
    return GaussianMixture(rng.standard_normal((2, 3)), [r @ r.T + 0.3 * np.eye(3) for r in root])


def exact(mixture, alpha_bars, nodes):
    labels = np.repeat(np.arange(mixture.classes), nodes)
    return lambda x, i: mixture.noise_prediction(x, alpha_bars[i], labels)


@pytest.mark.parametrize(("dim", "nodes"), [(1, 4), (2, 7), (3, 64), (20, 40), (50, 300)])
def test_nodes_are_standardised(dim, nodes):
    z = gaussian_nodes(dim, nodes)
    assert z.shape == (nodes, dim)
    assert np.abs(z.mean(axis=0)).max() < 1e-12
    assert np.abs(z.T @ z / nodes - np.eye(dim)).max() < 1e-10
    assert np.array_equal(z, gaussian_nodes(dim, nodes))


@pytest.mark.parametrize("steps", [1, 3, 20, 200])
def test_scalar_classes_with_constant_guidance_are_ddim_law(steps):
    means, std, push = np.array([[1.0, -0.5], [-0.3, 0.8]]), 0.7, np.array([0.02, -0.01])
    a, mixture = visited(steps), GaussianMixture(means, std**2)
    got_means, got_covs = guided_ddim_law(lambda x, i: exact(mixture, a, 32)(x, i) + push, 2, 2, a, 32)
    for k in range(2):
        mean, spread = ddim_law(means[k], std, a, push)
        assert np.abs(got_means[k] - mean).max() < 1e-10
        assert np.abs(got_covs[k] - np.diag(spread**2)).max() < 1e-10


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_full_covariances_with_linear_guidance_follow_the_affine_recursion(mixture, steps):
    """x' = A x + b step by step, A and b from the exact score's own formula."""
    rng = np.random.default_rng(4)
    pull, a = 0.05 * rng.standard_normal((3, 3)), visited(steps)
    means, covs = guided_ddim_law(lambda x, i: exact(mixture, a, 50)(x, i) + x @ pull.T + 0.03, 2, 3, a, 50)
    for k in range(2):
        m, c = np.zeros(3), np.eye(3)
        for now, after in itertools.pairwise(a):
            inverse = np.linalg.inv(now * mixture.covs[k] + (1 - now) * np.eye(3))
            slope = np.sqrt(1 - now) * inverse + pull
            offset = -np.sqrt(1 - now) * inverse @ (np.sqrt(now) * mixture.means[k]) + 0.03
            gain = np.sqrt(1 - after) - np.sqrt(after * (1 - now) / now)
            step = np.sqrt(after / now) * np.eye(3) + gain * slope
            m, c = step @ m + gain * offset, step @ c @ step.T
        assert np.abs(means[k] - m).max() < 1e-9
        assert np.abs(covs[k] - c).max() < 1e-9


def test_nonlinear_guidance_against_many_samples():
    """A push of bounded size along the first axis: moments within 3 % of those of 40,000 trajectories."""
    a, mixture = visited(40), GaussianMixture(np.array([[0.8, 0.2]]), 1.0)

    def noise_prediction(x, i):
        return exact(mixture, a, len(x))(x, i) - 0.02 * np.tanh(x * [1.0, 0.5])

    means, covs = guided_ddim_law(noise_prediction, 1, 2, a, 128)
    x = np.random.default_rng(5).standard_normal((40_000, 2))
    for i, (now, after) in enumerate(itertools.pairwise(a)):
        x = np.sqrt(after / now) * x + (np.sqrt(1 - after) - np.sqrt(after * (1 - now) / now)) * noise_prediction(x, i)
    plain = guided_ddim_law(exact(mixture, a, 128), 1, 2, a, 128)
    assert np.abs(means[0] - x.mean(axis=0)).max() < 0.03
    assert np.abs(covs[0] / np.cov(x.T) - 1)[[0, 1], [0, 1]].max() < 0.03
    assert covs[0][0, 0] > 1.1 * plain[1][0][0, 0]  # the push matters


def test_nodes_follow_trajectories():
    """Guidance that remembers (as InfoNCE does) sees each node move as one sample: node order is kept from step to step."""
    a, mixture, seen = visited(30), GaussianMixture(np.array([[1.0, 0.0]]), 0.5), []

    def noise_prediction(x, i):
        seen.append(x.copy())
        return exact(mixture, a, 64)(x, i)

    guided_ddim_law(noise_prediction, 1, 2, a, 64)
    for before, after in itertools.pairwise(seen):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98


def test_nodes_are_the_trajectories_of_an_affine_prediction(mixture):
    """Exactly, whatever the map: C = M M' makes the nearest root M itself."""
    pull, a, z, seen = 0.05 * np.random.default_rng(4).standard_normal((3, 3)), visited(30), gaussian_nodes(3, 50), []
    plain = exact(mixture, a, 50)

    def predict(x, i):
        return plain(x, i) + x @ pull.T + 0.03

    guided_ddim_law(lambda x, i: (seen.append(x.copy()), predict(x, i))[1], 2, 3, a, 50)
    x = np.tile(z, (2, 1))
    for i, (now, after) in enumerate(itertools.pairwise(a)):
        np.testing.assert_allclose(seen[i], x, atol=1e-8)
        x = np.sqrt(after / now) * x + (np.sqrt(1 - after) - np.sqrt(after * (1 - now) / now)) * predict(x, i)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 5}, "nodes=5 is too few for 3 dimensions: use at least 6"),
        ({"alpha_bars": [0.5, 0.4, 1.0]}, "non-decreasing"),
        ({"classes": 0}, "classes=0"),
        ({"noise_prediction": lambda x, i: x[:, :2]}, r"returned shape \(16, 2\) for x of shape \(16, 3\)"),
        ({"noise_prediction": lambda x, i: x * np.nan}, "noise_prediction at step 0 contains nan"),
    ],
)
def test_bad_calls_are_named(change, message):
    arguments = {"noise_prediction": lambda x, i: x, "classes": 2, "dim": 3, "alpha_bars": visited(4), "nodes": 8} | change
    with pytest.raises(ValueError, match=message):
        guided_ddim_law(**arguments)


def test_whole_numbers_as_floats_are_taken():
    np.testing.assert_array_equal(gaussian_nodes(2.0, 256.0), gaussian_nodes(2, 256))
    levels = np.linspace(0.1, 1, 5)
    found, wanted = (guided_ddim_law(lambda x, _i: 0 * x, k, 2, levels, 64 * k / k)[0] for k in (2.0, 2))
    np.testing.assert_array_equal(found, wanted)
