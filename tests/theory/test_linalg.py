"""The singular value decomposition: its factors, and the same ones where LAPACK's faster algorithm gives up."""

import numpy as np
import pytest

from theory import guided_ddim_law
from theory._linalg import svd


def give_up(*_, **__):
    raise np.linalg.LinAlgError("SVD did not converge")


@pytest.mark.parametrize("gives_up", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (2, 6, 6), (2, 3, 4, 7)])
def test_the_factors_make_the_matrix(shape, gives_up, monkeypatch):
    matrix = np.random.default_rng(shape).standard_normal(shape)
    if gives_up:
        monkeypatch.setattr(np.linalg, "svd", give_up)
    left, sizes, right = svd(matrix)
    rank = min(shape[-2:])
    assert left.shape == (*shape[:-1], rank)
    assert sizes.shape == (*shape[:-2], rank)
    assert right.shape == (*shape[:-2], rank, shape[-1])
    assert np.abs((left * sizes[..., None, :]) @ right - matrix).max() < 1e-13
    assert np.abs(left.swapaxes(-1, -2) @ left - np.eye(rank)).max() < 1e-13
    assert np.abs(right @ right.swapaxes(-1, -2) - np.eye(rank)).max() < 1e-13
    assert (np.diff(sizes, axis=-1) <= 0).all()
    assert sizes.min() > 0


def test_a_law_does_not_fail_where_lapack_gives_up(monkeypatch):
    """It did with two threads at strong guidance in 100 dimensions, and not with one."""
    pull = 0.2 * np.random.default_rng(5).standard_normal((4, 4))
    arguments = (lambda x, i: x @ pull, 2, 4, [0.05, 0.3, 0.8, 1.0], 32)
    means, covs = guided_ddim_law(*arguments)
    monkeypatch.setattr(np.linalg, "svd", give_up)
    again = guided_ddim_law(*arguments)
    assert np.abs(again[0] - means).max() < 1e-12
    assert np.abs(again[1] - covs).max() < 1e-12
