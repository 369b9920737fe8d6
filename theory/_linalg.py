"""The singular value decomposition that always comes to an end."""

import numpy as np

from theory._checks import Array


def svd(matrices: Array) -> tuple[Array, Array, Array]:
    """(U, s, V') of matrices (..., m, n) with min(m, n) singular values, by LAPACK's gesdd, and by gesvd where that gives up.

    gesdd is the faster, but now and then ends in "SVD did not converge" on a finite, well-conditioned matrix. Whether it does depends on
    the number of BLAS threads (OpenBLAS issue 3044).
    """
    try:
        return np.linalg.svd(matrices, full_matrices=False)
    except np.linalg.LinAlgError:
        import scipy.linalg  # imported here because it is hardly ever needed

        flat = matrices.reshape(-1, *matrices.shape[-2:])
        parts = [scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd") for matrix in flat]
        left, sizes, right = (np.stack(part) for part in zip(*parts, strict=True))
        lead = matrices.shape[:-2]
        return left.reshape(*lead, *left.shape[1:]), sizes.reshape(*lead, -1), right.reshape(*lead, *right.shape[1:])
