"""The figure of the paper's ablations, on made-up results of its design."""

from __future__ import annotations

import csv
import tomllib

import numpy as np
import pytest
from scipy import stats

from figures.experiments import ROOT
from figures.image_figures import comparisons, paper_ablations
from figures.image_figures.paper_ablations import LEFT, MIDDLE, RIGHT
from figures.inputs import Files

SEEDS = range(440, 445)


@pytest.fixture(scope="module")
def accuracies():
    """{(run, method): robust accuracies by seed} of every set of the design, all different."""
    design = tomllib.loads((ROOT / "image_experiments" / "designs" / "digits-paper.toml").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    sets = [(run, method.replace(":", "-")) for run, of in design["run"].items() for method in of["methods"]]
    return {one: rng.uniform(0.6, 0.8, len(SEEDS)) for one in sets}


@pytest.fixture(scope="module")
def files(accuracies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    path = folder / paper_ablations.TABLE
    path.parent.mkdir()
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", "method", "seed", "n_synthetic", "robust_accuracy", "attack", "norm", "eps"])
        for (run, method), values in accuracies.items():
            for seed, value in zip(SEEDS, values, strict=True):  # the sweep writes PGD-20 first
                writer.writerow((run, method, seed, 2000, 1 - value, "pgd-20", "linf", 0.15))
                writer.writerow((run, method, seed, 2000, value, "apgd-ce", "linf", 0.15))
    return Files(folder)


@pytest.mark.parametrize(
    ("panel", "name", "one", "other"),
    [
        (LEFT, "InfoNCE 0.3", ("random", "infonce-0.3"), ("random", "unguided")),
        (LEFT, "hard negatives 0.3, projection head", ("head", "hard-negative-0.3"), ("random", "unguided")),
        (LEFT, "InfoNCE 0.3, 200 ≤ t < 600", ("window-200-600", "infonce-0.3"), ("random", "unguided")),
        (LEFT, "InfoNCE 0.3, noisy state", ("xt", "infonce-0.3"), ("random", "unguided")),
        (MIDDLE, "largest gradient", ("gradient-norm-highest", "unguided"), ("random", "unguided")),
        (RIGHT, "by chance", ("random", "infonce-0.3"), ("random", "unguided")),
        (RIGHT, "lowest entropy", ("entropy", "infonce-0.3"), ("entropy", "unguided")),
        (RIGHT, "hard negatives 0.3, most confident", ("confidence", "hard-negative-0.3"), ("confidence", "unguided")),
    ],
)
def test_a_line_is_the_paired_difference_with_students_interval(files, accuracies, panel, name, one, other):
    gain = accuracies[one] - accuracies[other]
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    series = paper_ablations.numbers(files).series(panel, name)
    np.testing.assert_allclose([series.y[0], series.low[0], series.high[0]], [gain.mean(), low, high], rtol=1e-9)


def test_every_set_of_the_design_has_its_line(files, accuracies):
    numbers = paper_ablations.numbers(files)
    plain = [method == "unguided" for _, method in accuracies]
    assert len(numbers.names(LEFT)) == 16
    assert len(numbers.names(MIDDLE)) == sum(plain) - 1
    assert len(numbers.names(LEFT)) + len(numbers.names(RIGHT)) == len(plain) - sum(plain) + 1  # one of them in both
    strengths = [name for name in numbers.names(LEFT) if name.startswith("InfoNCE") and "," not in name]
    assert strengths == ["InfoNCE 0.1", "InfoNCE 0.3", "InfoNCE 0.6", "InfoNCE 1"]
    assert numbers.panels() == [LEFT, MIDDLE, RIGHT]
    drawn = paper_ablations.draw(numbers)
    assert [len(axis.get_yticks()) for axis in drawn.axes] == [len(numbers.names(panel)) for panel in (LEFT, MIDDLE, RIGHT)]


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("random/unguided", "unguided"),
        ("head/infonce-0.3", "InfoNCE 0.3 (projection head)"),
        ("window-200-600/infonce-0.3", "InfoNCE 0.3, 200 ≤ t < 600"),
        ("gradient-norm/unguided", "unguided (smallest gradient)"),
        ("class-separation/infonce-0.3", "InfoNCE 0.3 (best separated)"),
        ("head/anchored-reversed-0.1", "away from the anchors 0.1, projection head"),  # of another design
        ("confident-hot/unguided", "unguided from hotter noise (most confident)"),
    ],
)
def test_the_sides_of_its_comparisons_have_names(side, name):
    assert comparisons.shown(side) == name
