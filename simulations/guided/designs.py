"""The settings that run: the grid for each question of `guided_diffusion.py`."""

from __future__ import annotations

import functools
from dataclasses import replace

from simulations.guided.models import Setting

UNGUIDED = Setting()
ANCHORED = Setting(guidance="anchored", scale=0.3)
SUPERVISED = Setting(guidance="supervised", at="x0", high=400, scale=0.3)
INFONCE = Setting(guidance="infonce", at="x0", high=400, scale=1.0)

# guidance x scale on two classes in the plane: scales whose class SNR spans about 1 to more than 3, if the guidance can reach it
GRID: tuple[tuple[Setting, tuple[float, ...]], ...] = (
    (Setting(guidance="constant"), (0.05, 0.15, 0.4)),
    (Setting(guidance="classifier"), (0.05, 0.2, 0.6)),
    (Setting(guidance="classifier-free"), (0.2, 0.6, 1.5)),
    (ANCHORED, (0.1, 0.3, 1.0)),
    (replace(ANCHORED, at="x0", high=400), (0.3, 1.0, 3.0)),
    (SUPERVISED, (0.1, 0.3, 1.0)),
    (replace(SUPERVISED, at="xt", high=1000), (0.03, 0.1, 1.0)),
    (INFONCE, (0.3, 1.0)),
    (replace(INFONCE, at="xt", high=1000), (0.03, 0.1)),
    (Setting(guidance="hard-negative", at="x0", high=400), (10.0,)),
)


ROTATING = replace(SUPERVISED, at="xt", high=1000, scale=1.0)
CURVES = (UNGUIDED, ANCHORED, SUPERVISED, INFONCE, ROTATING)
"""Shown as samples, trajectories and learning curves."""
WINDOWS = ((0, 200), (0, 400), (0, 700), (0, 1000), (400, 1000), (700, 1000))
# do the classes rotate? Unanchored at the noisy state, unanchored at the denoised estimate, anchored
ROTATION = (replace(ROTATING, high=400), replace(SUPERVISED, at="x0", scale=0.01), ANCHORED)


def guidance_design() -> list[Setting]:
    return [UNGUIDED, *(replace(base, scale=scale) for base, scales in GRID for scale in scales)]


def window_design() -> list[Setting]:
    return [replace(base, low=low, high=high) for base in ROTATION for low, high in WINDOWS]


def every_design() -> list[Setting]:
    return [replace(base, every=k) for base in (ANCHORED, SUPERVISED) for k in (1, 2, 5, 10)]


def solver_design() -> list[Setting]:
    solvers = (("ddim", 10), ("ddim", 20), ("ddim", 50), ("ddim", 250), ("ddpm", 250), ("dpm-solver++", 20), ("unipc", 20))
    return [replace(base, solver=solver, steps=steps) for base in (UNGUIDED, ANCHORED, SUPERVISED) for solver, steps in solvers]


def mixture_design() -> list[Setting]:
    problems = ("d10", "d100", "anisotropic", "unbalanced", "ring")
    return [replace(base, problem=name) for name in problems for base in (UNGUIDED, ANCHORED, SUPERVISED, INFONCE)]


def network_design() -> list[Setting]:
    return [replace(base, score=f"network-{n}") for n in (200, 2000) for base in (UNGUIDED, ANCHORED, SUPERVISED)]


DESIGNS = {
    "guidance": guidance_design,
    "windows": window_design,
    "every": every_design,
    "solvers": solver_design,
    "mixtures": mixture_design,
    "network": network_design,
}


def settings_of(parts: tuple[str, ...]) -> list[Setting]:
    """The settings of several designs, each once."""
    return list(dict.fromkeys(setting for part in parts for setting in DESIGNS[part]()))


@functools.cache
def designs_of(setting: Setting) -> str:
    """Names of the designs of a setting, and "curves" if it is in CURVES, separated by spaces; may be empty for a single run."""
    named = [name for name, design in DESIGNS.items() if setting in design()]
    return " ".join([*named, *["curves"] * (setting in CURVES)])
