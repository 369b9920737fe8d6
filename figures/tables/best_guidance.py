"""The guidance that theory predicts to be best for each learner and number of samples per dimension, and what was measured of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.statistics import half_width
from figures.diffusion_figures.guidance_value import TABLE
from figures.diffusion_figures.settings import named
from figures.figure import Figure
from figures.inputs import Files
from figures.table import Spread

FIGURE = Figure(
    "The best guidance in theory, for each learner and number of samples",
    "Of all guidances at four strengths whose price is at most 4 (W2), the one with the largest predicted robust accuracy; its predicted "
    "gain over unguided samples, the measured one with its 95 % interval over seeds, and the largest that was found for classes within "
    "this Wasserstein-2 distance, by a search or as one of these guidances.",
    (TABLE,),
    "two Gaussian classes in 100 dimensions, ‖μ‖ = 2, σ = 1, l_2 attack of 0.3; the guidance knows the Bayes classifier",
)
HEADER = ("learner", "samples per dimension", "guidance", "W2", "gain in theory", "gain measured", "largest found at this W2")


def rows(files: Files) -> list[list[Any]]:
    names = "scale samples_per_dim w2 accuracy_predicted unguided_predicted best_at_this_w2 gain gain_error seeds"
    data = files.columns(TABLE, names, text="label learner")
    found: list[list[Any]] = []
    for learner, ratio in dict.fromkeys(zip(data["learner"].tolist(), data["samples_per_dim"].tolist(), strict=True)):
        known = np.isfinite(data["best_at_this_w2"])  # beyond the prices that were searched, the largest gain is not known
        here = np.flatnonzero((data["learner"] == learner) & (data["samples_per_dim"] == ratio) & known)
        i = here[np.argmax(data["accuracy_predicted"][here])]
        reach, gain = float(half_width(data["seeds"][i]) * data["gain_error"][i]), float(data["gain"][i])
        predicted, largest = (
            float(data[name][i] - data["unguided_predicted"][i]) for name in ("accuracy_predicted", "best_at_this_w2")
        )
        about = [learner, int(ratio), named(data["label"][i], data["scale"][i]), float(data["w2"][i])]
        found.append([*about, predicted, Spread(gain, low=gain - reach, high=gain + reach), largest])
    return found
