"""The line through the gains of InfoNCE, on tables that are made here."""

import csv

import numpy as np
import pytest

from command_line.output import UserError
from figures.image_figures import where_guidance_gains
from figures.image_figures.where_guidance_gains import FITTED, fit, gains
from figures.inputs import Files

SEEDS = range(5)


def write(folder, table, runs, attack="apgd-ce"):
    """runs: {run: (class SNR of unguided images, gain of InfoNCE)}; the last seed has no unguided images."""
    rng = np.random.default_rng(0)
    path = folder / table
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", "method", "seed", "robust_accuracy", "attack", "norm", "eps", where_guidance_gains.SNR])
        for run, (snr, gain) in runs.items():
            off = rng.normal(0, 0.1, len(SEEDS) - 1)
            for seed in SEEDS:
                plain = rng.random()
                writer.writerow([run, "infonce-0.3", seed, plain + gain, attack, "linf", 0.15, 1.0])
                if seed < len(SEEDS) - 1:
                    writer.writerow([run, "unguided", seed, plain, attack, "linf", 0.15, snr + off[seed] - off.mean()])
    return Files(folder)


def test_the_line_is_that_through_the_gains_over_the_seeds_that_both_have(tmp_path):
    """Gains on a line of slope 0.02 that is zero at 4, over two designs."""
    first, second = {"a": (3.0, -0.02), "b": (5.0, 0.02)}, {"c": (4.5, 0.01), "d": (3.5, -0.01)}
    write(tmp_path, FITTED[0], first)
    files = write(tmp_path, FITTED[1], second)
    assert fit(files) == pytest.approx((0.02, 4.0))
    assert [one[:4] for one in gains(FITTED[1], files)] == [
        ("infonce-0.3", run, pytest.approx(snr), pytest.approx(gain)) for run, (snr, gain) in second.items()
    ]


def test_too_few_sets_or_another_attack_is_said(tmp_path):
    write(tmp_path, FITTED[0], {"a": (3.0, -0.02)})
    files = write(tmp_path, FITTED[1], {"b": (5.0, 0.02)})
    with pytest.raises(UserError, match=r"2 sets of infonce-0\.3, too few for a line"):
        fit(files)
    files = write(tmp_path / "other", FITTED[0], {"a": (3.0, -0.02)}, attack="pgd-20")
    with pytest.raises(UserError, match="no row has the attack apgd-ce"):
        gains(FITTED[0], files)
