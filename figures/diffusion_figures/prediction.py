"""Theory's predictions from the guidance setting alone, against measurement: class SNR, Wasserstein distance, sample multiplier."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import ticker

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT
from figures.figure import GUIDE, Figure, Numbers, diagonal, points
from figures.inputs import Files

TABLE = "guided_diffusion/prediction.csv"
QUANTITIES = {"class_snr": "class SNR", "w2": "Wasserstein-2", "multiplier": "sample multiplier"}
FIGURE = Figure(
    "Predicted and measured: class SNR, distance, sample multiplier",
    "Each mark is one guidance setting: what theory predicts from the setting alone, before a sample is drawn, against the mean "
    "over seeds. Right: unguided samples that one guided sample is worth to averaging, with 95 % intervals and the band of 10 %. "
    "Left out: predicted distances below twice that of as many real samples; on the right, the anisotropic and the eight-class mixture, "
    "for "
    "which no multiplier is computed. Far below the line: the supervised loss at the noisy "
    "state, scale 1; it rotates the classes where the prediction expects it to separate them.",
    (TABLE,),
    "DDIM, all mixtures and scales of the study, 20 training samples",
)
GROUPS = ("two classes, exact score", "other mixtures", "trained network")


def numbers(files: Files) -> Numbers:
    wanted = " ".join(f"{name} {name}_predicted" for name in QUANTITIES)
    data = files.columns(TABLE, f"{SETTING} {wanted} w2_floor multiplier_low multiplier_high", text=SETTING_TEXT)
    known = np.isfinite(data["class_snr_predicted"])
    plain = (data["score"] == "exact") & (data["problem"] == "two")
    members = (plain, data["problem"] != "two", data["score"] != "exact")
    rows = []
    for name, panel in QUANTITIES.items():
        seen = data["w2_predicted"] > 2 * data["w2_floor"] if name == "w2" else known  # otherwise it would show sampling noise
        for group, of in zip(GROUPS, members, strict=True):
            shown = known & seen & of & np.isfinite(data[name]) & (data[name] > 0)
            ends = (data["multiplier_low"][shown], data["multiplier_high"][shown]) if name == "multiplier" else (None, None)
            rows += points(panel, group, data[f"{name}_predicted"][shown], data[name][shown], *ends)
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), 2.4 * len(panels), 2.7)
    for axis, panel in zip(axes, panels, strict=True):
        for name in numbers.names(panel):
            series, i = numbers.series(panel, name), GROUPS.index(name)
            axis.plot(series.x, series.y, MARKERS[i], color=COLOURS[i], ms=4, alpha=0.8, label=name)
            known = np.isfinite(series.low)
            axis.vlines(series.x[known], series.low[known], series.high[known], color="0.4", lw=0.8)
        inside = numbers.columns["panel"] == panel
        values = np.concatenate([numbers.columns[name][inside] for name in ("x", "y", "low", "high")])
        values = values[np.isfinite(values)]
        low, high = float(values.min()) * 0.8, float(values.max()) * 1.25
        diagonal(axis, low, high)
        if panel == QUANTITIES["multiplier"]:
            ends = np.array([low, high])
            axis.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.5", alpha=0.2, lw=0, label="within 10 %", gid=GUIDE)
        axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="predicted", title=panel)
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(ticker.LogLocator(subs=(1, 3) if high > 20 * low else (1, 2, 5)))
            one.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            one.set_minor_formatter(ticker.NullFormatter())
    axes[0].set_ylabel("measured")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
