"""Is the weaker attack used to compare guidance misleading? Differences after each part of AutoAttack."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import Columns
from command_line.statistics import mean_interval
from figures.figure import Figure
from figures.image_figures.ablations import by_seed
from figures.image_figures.comparisons import compared
from figures.inputs import Files, where
from figures.table import Spread

APGD, WHOLE, SIGNS = "digits-apgd/sweep.csv", "digits-evidence/sweep.csv", "gtsrb-rivals/sweep.csv"
FIGURE = Figure(
    "Differences after each part of AutoAttack",
    "Difference in robust accuracy, paired by seed, mean and 95 % interval (Student): after APGD-CE, the attack of digits-report; after "
    "APGD-T too; after all of AutoAttack; and the change of the difference from APGD-CE to the last attack. Each attack runs on the "
    "survivors of the earlier ones. Then: robust accuracy that the further attacks took from the first. digits-apgd attacks all 1,197 "
    "test images, digits-evidence the first 100, gtsrb-rivals the first 200.",
    (APGD, WHOLE, SIGNS),
    "scikit-learn's digits, 300 real and 2,000 synthetic images, l_inf 0.15; GTSRB at 16x16, 1,000 and 2,000, 8/255, soft labels",
)
HEADER = ("comparison", "APGD-CE", "with APGD-T", "all of AutoAttack", "change", "taken from the first", "seeds", "design")
PAIRS = {
    APGD: (("main/anchored-reversed-0.1", "main/unguided"), ("main/anchored-reversed-0.1", "hot/unguided")),
    WHOLE: tuple(
        (side, "main/unguided")
        for side in ("main/anchored-reversed-0.1", "main/infonce-0.3", "main/noise-0.1", "main/anchored-0.1", "more/unguided")
    ),
    SIGNS: (("autoattack/particle-auto", "autoattack/unguided"),),
}
ATTACKS = {APGD: "apgd", WHOLE: "autoattack", SIGNS: "autoattack"}


def rows(files: Files) -> list[list[Any]]:
    found: list[list[Any]] = []
    for table, attack in ATTACKS.items():
        stages = ["after_apgd_ce", *(["after_apgd_t"] if attack == "autoattack" else []), "robust_accuracy"]
        data = files.columns(table, " ".join(("seed", *stages)), text="run method attack")
        of = where(data, attack=attack)
        data = {name: values[of] for name, values in data.items()}
        for a, b in PAIRS[table]:
            left, right = (accuracies(data, side, stages) for side in (a, b))
            seeds = [seed for seed in left if seed in right]
            if not seeds:  # a smaller sweep does not have this run
                continue
            gaps = np.array([left[seed] - right[seed] for seed in seeds])
            spreads = [spread(column) for column in gaps.T]
            missing = [Spread(float("nan"))] * (3 - len(spreads))
            taken = spread(np.array([left[seed][0] - left[seed][-1] for seed in seeds]))
            change = spread(gaps[:, -1] - gaps[:, 0])
            found.append([compared(a, b), *spreads, *missing, change, taken, len(seeds), table.partition("/")[0]])
    return found


def accuracies(data: Columns, side: str, stages: list[str]) -> dict[int, Any]:
    """{seed: robust accuracy after each stage}."""
    run, _, method = side.partition("/")
    columns = [by_seed(data, run, method, stage) for stage in stages]
    return {seed: np.array([column[seed] for column in columns]) for seed in columns[0]}


def spread(values: Any) -> Spread:
    mean, low, high = mean_interval(values.tolist())
    return Spread(mean, low=low, high=high)
