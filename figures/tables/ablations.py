"""All ablations on digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from command_line.words import in_words
from figures.figure import Figure
from figures.image_figures import ablation_selection
from figures.image_figures.ablations import FIRST, SETTINGS, SNR, TABLE, by_seed, gain, read_sweep, window_of
from figures.inputs import Files
from figures.table import Spread
from figures.tables.images import spread

FIGURE = Figure(
    "All ablations on digits",
    "Mean (standard deviation over seeds) of robust accuracy, and its gain over 2,000 unguided images, paired by seed, with the "
    "95 % interval (Student). The intervals are not corrected for their number.",
    (TABLE,),
    SETTINGS,
)
DESCRIBED = (SNR, "within_class_diversity", "label_error")
HEADER = ("method", "choice", "synthetic", "PGD-20", "minus unguided", "class SNR", "diversity", "label error")

PLAIN = ""
RUNS = {"input-xt": "noisy state", "head-128": "projection head"}
RUNS |= {run: name for name, (run, _) in ablation_selection.CHOICES.items() if run != FIRST}


def rows(files: Files) -> list[list[Any]]:
    data = read_sweep(files, *DESCRIBED)
    found = []
    for run, method in dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True)):
        mean, low, high = gain(data, run, method)
        if (run, method) == (FIRST, "unguided"):
            mean = low = high = float("nan")
        count = int(next(iter(by_seed(data, run, method, "n_synthetic").values())))
        robust = np.array(list(by_seed(data, run, method).values()))
        described = [spread(np.array(list(by_seed(data, run, method, name).values()))) for name in DESCRIBED]
        found.append([in_words(method), choice_in_words(run), count, spread(robust), Spread(mean, low=low, high=high), *described])
    return found


def choice_in_words(run: str) -> str:
    """What a run of the design does other than the first; its numbers of images have a column of their own."""
    if (window := window_of(run)) is not None:
        return window
    return PLAIN if run == FIRST or run.startswith("synthetic-") else RUNS.get(run, run)


def finding(files: Files) -> str:
    """What the intervals show, in two sentences."""
    above, below, open_ = [], [], 0
    table = rows(files)
    size = next((row[2] for row in table if row[:2] == ["unguided", PLAIN]), 0)  # of the first run: a design begins with it
    for method, choice, count, _, of, *_ in table:
        if math.isnan(of.low) or count != size:
            continue
        name = f"{method} ({choice})" if choice != PLAIN else method
        above += [name] * (of.low > 0)
        below += [name] * (of.high < 0)
        open_ += of.low <= 0 <= of.high
    if not above and not below and not open_:
        return ""
    return (
        f"Of {len(above) + len(below) + open_} choices on digits, each with as many images, the interval of the gain over unguided ones "
        f"lies above zero for {len(above)} ({', '.join(above) or 'none'}), below for {len(below)} ({', '.join(below) or 'none'}), and "
        f"contains zero for {open_}. The 95 % intervals are not corrected: about one in twenty choices without effect would seem to "
        "have one."
    )
