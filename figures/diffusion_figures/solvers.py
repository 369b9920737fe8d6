"""Fast solvers and few steps under guidance."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT, named
from figures.figure import Figure, Numbers, points, ticks
from figures.inputs import Files

TABLE = "guided_diffusion/prediction.csv"
COLUMNS = {"class_snr": "class SNR", "w2": "Wasserstein-2 distance"}
FIGURE = Figure(
    "Are few steps enough?",
    "Class SNR and Wasserstein-2 distance that a guidance reaches with each solver, against its network evaluations, mean over "
    "seeds. DDIM's marks are joined.",
    (TABLE,),
    "two Gaussian classes in the plane, exact score",
)
NAMES = {"ddim": "DDIM", "ddpm": "DDPM", "dpm-solver++": "DPM-Solver++", "unipc": "UniPC"}
SOLVERS = ("ddim", "ddpm", "dpm-solver++", "unipc")


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"{SETTING} steps class_snr w2", text=SETTING_TEXT)
    chosen = np.array(["solvers" in text.split() for text in data["designs"]])
    if len(set(data["solver"][chosen])) < 2:
        return Numbers.of([])
    rows = []
    for column, panel in COLUMNS.items():
        for label, scale in dict.fromkeys(zip(data["label"][chosen].tolist(), data["scale"][chosen].tolist(), strict=True)):
            for solver in SOLVERS:
                of = np.flatnonzero(chosen & (data["label"] == label) & (data["scale"] == scale) & (data["solver"] == solver))
                of = of[np.argsort(data["steps"][of], kind="stable")]
                rows += points(panel, f"{named(label, scale)} | {solver}", data["steps"][of], data[column][of])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, 7.0, 4.2)
    guidances = list(dict.fromkeys(name.split(" | ")[0] for name in numbers.columns["series"]))
    for axis, panel in zip(axes, numbers.panels(), strict=True):
        for _, series in numbers.all(panel):
            guidance, solver = series.name.split(" | ")
            i, j = guidances.index(guidance), SOLVERS.index(solver)
            look = {"color": COLOURS[i], "marker": MARKERS[j], "ms": 5, "ls": ("-", "--", ":")[i % 3] if j == 0 else "none"}
            axis.plot(series.x, series.y, label=f"{guidance}, {NAMES[solver]}", mfc="white" if j else COLOURS[i], **look)
        axis.set(xscale="log", xlabel="network evaluations", ylabel=panel, title=panel)
        ticks(axis, "x", (10, 20, 50, 250))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return figure
