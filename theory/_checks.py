"""Input checks shared by all of theory/: each raises ValueError naming the value, the cause and the remedy."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Remade:
    """A frozen dataclass whose copies and pickles are rebuilt from its fields, so that arrays stay read-only and no stale cache is copied.
    A plain copy of an array would be writable, and caches would not notice changes."""

    def __reduce__(self) -> tuple[Any, ...]:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}  # type: ignore[arg-type]
        return functools.partial(type(self), **given), ()

    def __repr__(self) -> str:
        entries = [f.name for f in dataclasses.fields(self) if f.init and f.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_shown(getattr(self, name))}' for name in entries)})"


FEW = 4
"""Arrays with at most this many numbers are printed; larger ones are shown by their shape."""


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= FEW else f"<array {value.shape}>"
    if isinstance(value, list | tuple) and len(value) > FEW:
        return f"<{len(value)} values>"
    return repr(value)


def _as_float64(value: Any, name: str) -> Array:
    """Return `value` as a float64 array; numbers stored as text, ragged rows and complex numbers are rejected."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged ({error}): give rows of equal length") from None
    if array.dtype.kind not in "uif":
        raise ValueError(f"{name} has dtype {array.dtype}, not real numbers: convert it to float first")
    return array.astype(np.float64, copy=False)


def finite_array(value: Any, name: str, ndim: int | tuple[int, ...]) -> Array:
    """Return `value` as a float64 array of the given number of dimensions without NaN or infinity."""
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    array = _as_float64(value, name)
    if array.ndim not in allowed:
        wanted = " or ".join(f"{k}-d" for k in allowed)
        raise ValueError(f"{name} has shape {array.shape}: it must be {wanted}")
    if array.ndim and array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}: it is empty; give at least one coordinate")
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} contains {array[index]} at index {index}: remove or impute it")
    return array


def frozen_array(value: Any, name: str, ndim: int | tuple[int, ...]) -> Array:
    """Like `finite_array`, but a read-only copy, so that the content of a frozen object cannot change."""
    array = np.array(finite_array(value, name, ndim))
    array.flags.writeable = False
    return array


def real_number(value: Any, name: str) -> float:
    """Return `value` as a finite float; 0-d arrays count as numbers."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, int) and abs(value) > 10**300:
        raise ValueError(f"{name} has {len(str(abs(value)))} digits: it must fit a floating-point number")
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is not a finite real number")
    return float(value)


def non_negative(value: Any, name: str) -> float:
    """Return `value` as a finite float >= 0."""
    number = real_number(value, name)
    if number < 0:
        raise ValueError(f"{name}={number:g} is negative: it must be >= 0")
    return number


def numbers_only(value: Any, name: str) -> Array:
    """Return `value` as float64 of any shape; infinities are allowed, NaN is rejected."""
    array = _as_float64(value, name)
    if np.isnan(array).any():
        raise ValueError(f"{name} contains NaN: give numbers")
    return array


def positive(value: Any, name: str) -> float:
    """Return `value` as a finite float > 0."""
    number = real_number(value, name)
    if number <= 0:
        raise ValueError(f"{name}={number:g} must be > 0")
    return number


def open_unit(value: Any, name: str) -> float:
    """Return `value` as a float strictly between 0 and 1."""
    number = real_number(value, name)
    if not 0 < number < 1:
        raise ValueError(f"{name}={number:g} must lie strictly between 0 and 1")
    return number


def count(value: Any, name: str, minimum: int = 1) -> int:
    """Return `value` as an int >= minimum; 1e12 is accepted because it is whole, 2.5 is not."""
    number = real_number(value, name)
    if number != int(number) or number < minimum:
        raise ValueError(f"{name}={number:g} must be a whole number >= {minimum}")
    return int(value)


def norm_order(p: Any) -> float:
    """Return p as a float in [1, inf]."""
    if isinstance(p, np.ndarray) and p.ndim == 0:
        p = p.item()
    if isinstance(p, bool | np.bool_) or not isinstance(p, numbers.Real) or not float(p) >= 1:
        raise ValueError(f"p={p!r} is not a norm: use 1 <= p <= inf, for example 1, 2 or numpy.inf")
    return float(p)


def dual_exponent(p: float) -> float:
    """Return q with 1/p + 1/q = 1."""
    if p == 1:
        return math.inf
    return 1.0 if math.isinf(p) else p / (p - 1)


def same_dimension(left: int, right: int, names: str) -> None:
    """Raise if two dimensions differ; `names` says what they belong to."""
    if left != right:
        raise ValueError(f"{names} have dimensions {left} and {right}: they must be equal")


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    """Return `value` if it is one of `known`, otherwise raise and suggest the nearest known name."""
    if isinstance(value, str) and value in known:
        return value
    import difflib

    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(known)}{hint}")
