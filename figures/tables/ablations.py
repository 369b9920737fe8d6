"""All ablations on digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from figures.figure import Figure
from figures.image_figures.ablations import FIRST, SETTINGS, SNR, TABLE, by_seed, gain, read_sweep
from figures.inputs import Files
from figures.table import Spread
from figures.tables.images import spread
from figures.words import in_words

FIGURE = Figure(
    "All ablations on digits",
    "Mean (standard deviation over seeds) of robust accuracy, and its gain over 2,000 unguided images, paired by seed, with the "
    "95 % interval (Student). The intervals are not corrected for their number.",
    (TABLE,),
    SETTINGS,
)
DESCRIBED = (SNR, "within_class_diversity", "label_error")
HEADER = ("run", "method", "synthetic", "PGD-20", "minus unguided", "class SNR", "diversity", "label error")


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
        found.append([run, in_words(method), count, spread(robust), Spread(mean, low=low, high=high), *described])
    return found


def finding(files: Files) -> str:
    """What the intervals show, in two sentences."""
    above, below, open_ = [], [], 0
    table = rows(files)
    size = next((row[2] for row in table if row[:2] == [FIRST, "unguided"]), 0)
    for run, method, count, _, of, *_ in table:
        if math.isnan(of.low) or count != size:
            continue
        name = f"{method} ({run})" if run != FIRST else method
        above += [name] * (of.low > 0)
        below += [name] * (of.high < 0)
        open_ += of.low <= 0 <= of.high
    if not above and not below and not open_:
        return ""
    return (
        f"Of {len(above) + len(below) + open_} choices on digits, each with as many images, the interval of the gain over unguided ones "
        f"lies above zero for {len(above)} ({', '.join(above) or 'none'}), below for {len(below)} ({', '.join(below) or 'none'}), and "
        f"holds zero for {open_}. They are 95 % intervals of one choice each: of twenty choices without effect about one would seem to "
        "have one."
    )
