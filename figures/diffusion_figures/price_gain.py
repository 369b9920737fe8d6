"""Distinguishability gained against the Wasserstein distance paid, compared with the frontier."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import ticker

from command_line.drawing import COLOURS, new_figure
from command_line.words import guidance_in_words, place_of
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT, edge_of, in_design, is_study
from figures.figure import Figure, Numbers, joined, points
from figures.inputs import Files

TABLE, FRONTIER = "guided_diffusion/prediction.csv", "guided_diffusion/frontier.csv"
FIGURE = Figure(
    "Which guidance buys distinguishability at the lowest price?",
    "Each mark is a guidance at one scale, a mean over seeds; marks of one guidance are joined in order of scale. An edge around "
    "the marks: its loss sees the noisy state. Right: further from the real classes (Wasserstein-2). Up: more distinguishable. No classes "
    "lie above the thick line (T7). Lines that leave the frame lead to scales beyond it.",
    (TABLE, FRONTIER),
    "two Gaussian classes in the plane, ‖μ‖ = 1, σ = 1, DDIM with 50 steps, exact score",
)
BOUND = "frontier (T7): no classes lie above"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"{SETTING} class_snr w2", text=SETTING_TEXT)
    bound = files.columns(FRONTIER, "w2 class_snr")
    plane = in_design(data, "guidance")
    rows = points("study" if is_study(data) else "single run", BOUND, bound["w2"], bound["class_snr"])
    for label in dict.fromkeys(data["label"][plane].tolist()):
        of = np.flatnonzero(plane & (data["label"] == label))
        of = of[np.argsort(data["scale"][of], kind="stable")]
        rows += points(rows[0][0], guidance_in_words(label), data["w2"][of], data["class_snr"][of])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1, 7.0, 3.6)
    (kind,) = numbers.panels()
    bound = numbers.series(kind, BOUND)
    axis.plot(bound.x, bound.y, color="black", lw=2, label=BOUND)
    for name in (name for name in numbers.names(kind) if name != BOUND):
        edge, place = edge_of(name), place_of(name)
        dash = ("-", "--", "-.", ":")[bool(edge) + 2 * (place >= len(COLOURS))]  # a colour may stand for two methods
        joined(axis, place, numbers.series(kind, name), name, ms=5, lw=1, ls=dash, **edge)
    seen = numbers.columns["series"] != BOUND
    low, high, far = (f(numbers.columns[c][seen]) for f, c in ((np.nanmin, "y"), (np.nanmax, "y"), (np.nanmax, "x")))
    axis.set(yscale="log", xlim=(-0.03, 1.25 if kind == "study" else 1.1 * max(far, 0.5)))
    axis.set_ylim((0.8, 6) if kind == "study" else (0.7 * low, 1.5 * high))
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.minorticks_off()
    axis.set(xlabel="price: Wasserstein-2 distance to the real classes", ylabel="gain: class SNR")
    axis.set_title("Distinguishability bought, and its price")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
