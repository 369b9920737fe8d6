"""Guidance in the plane: predictions and measurements."""

from __future__ import annotations

from typing import Any

from figures.diffusion_figures.settings import SETTING, SETTING_TEXT, in_design, named
from figures.figure import Figure
from figures.inputs import Files

TABLE = "guided_diffusion/prediction.csv"
FIGURE = Figure(
    "Guidance in the plane, measured and predicted",
    "Mean over seeds, beside what theory predicts from the setting alone. Multiplier: unguided samples that one guided sample is "
    "worth to averaging 20 samples.",
    (TABLE,),
    "two Gaussian classes in the plane, ‖μ‖ = 1, σ = 1, DDIM with 50 steps, exact score",
)
NAMES = {"class_snr": "class SNR", "alignment": "alignment", "w2": "W2", "multiplier": "multiplier"}
HEADER = ("guidance", *(f"{name}{kind}" for name in NAMES.values() for kind in ("", ", predicted")))


def rows(files: Files) -> list[list[Any]]:
    wanted = " ".join(f"{name} {name}_predicted" for name in NAMES)
    data = files.columns(TABLE, f"{SETTING} {wanted}", text=SETTING_TEXT)
    return [
        [
            named(data["label"][i], data["scale"][i]),
            *(float(data[f"{name}{kind}"][i]) for name in NAMES for kind in ("", "_predicted")),
        ]
        for i in in_design(data, "guidance").nonzero()[0]
    ]
