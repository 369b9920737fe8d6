"""The hill-shaped dependence on class SNR, fitted to one sweep, against sweeps with other seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import ticker

from command_line.drawing import new_figure
from command_line.words import in_words, place_of
from figures.figure import Figure, Numbers, Row, diagonal, marks
from figures.image_figures.ablations import SETTINGS, TABLE, class_snr, described_again, family_of, gain, read_sweep
from figures.inputs import Files
from figures.tables.predictors import comparable, optimum

EVIDENCE, CHOICE, MNIST = (f"{design}/sweep.csv" for design in ("digits-evidence", "digits-choice", "mnist-report"))
FIRST = "main"
FIGURE = Figure(
    "Does the class SNR predict the gain on other seeds?",
    "Gain in robust accuracy over unguided images, measured (mean and 95 % interval over paired seeds), against the prediction: a parabola "
    "in the logarithm of the class SNR, fitted to the ablations (seeds 0 to 2, 2,000 images), not to this figure; other sweeps use the "
    "class SNR of three seeds. Left: other seeds, as many images, the same test images; the fit rests on one set, class-anchored. "
    "Middle: other seeds, 5,000 images, validation images: it fails. Right: MNIST at 10x10 pixels, 2,000 images, its test images, also "
    "PGD-20; it again rests on class-anchored. Left out: noisy copies of real images, and training with shifted images.",
    (TABLE, *(one for table in (EVIDENCE, CHOICE, MNIST) for one in (table, described_again(table)))),
    SETTINGS + " (left)",
)
NAMES = {"diverse": "diverse half", "steps-10": "10 steps", "initial-std": "hotter noise", "hot": "hotter noise"}
CARRIES = "class-anchored"
PANELS = {"2,000 images": EVIDENCE, "5,000 images": CHOICE, "MNIST": MNIST}


def fit(files: Files) -> tuple[Any, Any]:
    """(log class SNR, gain) of the ablation sets that the hill is fitted to."""
    fitted, snr = read_sweep(files), class_snr(files)
    sets = comparable(fitted)
    return np.log([snr[one] for one in sets]), np.array([gain(fitted, *one)[0] for one in sets])


def numbers(files: Files) -> Numbers:
    hill = np.polyfit(*fit(files), 2)
    rows: list[Row] = []
    for panel, table in PANELS.items():
        data, snr = read_sweep(files, table=table), class_snr(files, table)
        base = np.polyval(hill, np.log(snr[FIRST, "unguided"]))
        for run, method in comparable(data, FIRST):
            if (run, method) != (FIRST, "unguided") and run != "crop" and not method.startswith("noise-real"):
                predicted = float(np.polyval(hill, np.log(snr[run, method])) - base)
                name = NAMES.get(run, in_words(family_of(run, method)))
                rows.append((panel, name, predicted, *gain(data, run, method, FIRST)))
    return Numbers.of(rows)


def explained(numbers: Numbers, panel: str, without: str = "") -> float:
    """R² of the prediction, 1 - sum (y - x)^2 / sum (y - mean)^2; nothing is fitted here. without: a series to leave out."""
    of = (numbers.columns["panel"] == panel) & (numbers.columns["series"] != without)
    x, y = numbers.columns["x"][of], numbers.columns["y"][of]
    return float(1 - ((y - x) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def finding(files: Files) -> str:
    """How well the hill predicts, in words."""
    x, gains = fit(files)
    drawn, top = numbers(files), float(np.exp(optimum(x, gains)))
    scores = ", ".join(
        f"{panel}: {explained(drawn, panel):.2f} (without {CARRIES} {explained(drawn, panel, without=CARRIES):.2f})"
        for panel in PANELS
    )
    return (
        "Why: learners trained with cross-entropy learn from what lies near the boundary (T10 to T13), so there is a best class SNR, here "
        f"{top:.1f} by the parabola through {len(x)} sets of the ablations. Fitted to them alone it predicts the gains of other sweeps, "
        f"R² by sweep (1: perfect, below 0: worse than the mean): {scores}."
    )


def title_of(numbers: Numbers, panel: str) -> str:
    """With R², and without the set that carries it."""
    score, rest = explained(numbers, panel), explained(numbers, panel, without=CARRIES)
    return f"{panel}: R² {score:.2f}\n(without {CARRIES}: {rest:.2f})".replace(" -", " −")


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(3, height=3.6)
    for axis, panel in zip(axes, PANELS, strict=True):
        for _, series in numbers.all(panel):
            marks(axis, place_of(series.name), series, series.name)
        diagonal(axis, -0.045, 0.03)
        axis.set(xlabel="predicted gain", title=title_of(numbers, panel))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axes[0].set_ylabel("measured gain over unguided")
    labels = {text: mark for axis in axes for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=5, fontsize=7)
    return figure
