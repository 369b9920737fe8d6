"""What a run prints about its gains, and the numbers in its final table."""

import math

import pytest
import torch

from image_experiments.evaluation.robustness import standard_error
from image_experiments.output.tables import final_table, gain_lines, spread

NAN = math.nan
ROW = {"method": "m", "baseline": "unguided", "attack": "pgd", "norm": "linf", "eps": 0.1, "seeds": 2}
ENDS = {"low_images": NAN, "high_images": NAN}


@pytest.mark.parametrize(
    ("gain", "low", "high", "end"),
    [
        (0.02, 0.01, 0.03, ": gains"),
        (-0.02, -0.03, -0.01, ": loses"),
        (0.01, -0.01, 0.03, ": no difference detected"),
        (-0.01, -0.03, 0.01, ": no difference detected"),
        (NAN, NAN, NAN, " no number, as an accuracy is missing"),
    ],
)
def test_a_gain_in_words(gain, low, high, end):
    row = ROW | ENDS | {"gain": gain, "low": low, "high": high}
    (line,) = gain_lines([row, row | {"baseline": "real"}, row | {"seeds": 1}])
    assert line.startswith("m minus unguided, pgd linf 0.1:")
    assert line.endswith(end)
    assert gain_lines([row | {"baseline": "real"}])[0].startswith("m minus real")


def test_the_interval_for_new_images_is_told_where_it_is_known():
    row = ROW | {"gain": 0.02, "low": 0.01, "high": 0.03, "low_images": -0.005, "high_images": 0.045}
    (line,) = gain_lines([row])
    assert line.endswith("+0.0200, for new seeds [+0.0100, +0.0300], with new images too [-0.0050, +0.0450]: gains")


def test_means_and_spreads_over_seeds():
    assert spread([0.6, 0.7, 0.8]) == "0.7000 (0.1000)"
    assert spread([0.6, 0.7, 0.8], 2) == "0.70 (0.10)"
    assert spread([0.6]) == "0.6000"
    assert spread([]) == "-"
    assert standard_error(torch.tensor([True] * 3 + [False])) == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def test_the_final_table_has_a_line_for_each_method_and_a_column_for_each_attack():
    def row(method, seed, attack, images, robust):
        about = {"method": method, "seed": seed, "attack": attack, "norm": "linf", "eps": 0.1, "images": images}
        return about | {
            "n_real": 300,
            "n_synthetic": 0 if method == "real" else 2000,
            "clean_accuracy": 0.9,
            "robust_accuracy": robust,
        }

    rows = [
        row(method, seed, attack, images, base + 0.1 * seed + (0.2 if method == "unguided" else 0))
        for method in ("real", "unguided")
        for seed in (0, 1)
        for attack, images, base in (("pgd-20", 1000, 0.5), ("autoattack", 200, 0.4))
    ]
    described = [
        {
            "method": "unguided",
            "label_error": 0.02,
            "class_snr_crossfit": 3.0,
            "within_class_diversity": 0.4,
            "frechet_distance": 1.5,
        }
    ]
    head, _, real, unguided = final_table(rows, described).splitlines()
    assert head.split("  ")[0] == "method"
    for column in ("clean (n=1000)", "pgd-20 linf 0.1 (n=1000)", "autoattack linf 0.1 (n=200)", "label err.", "class SNR"):
        assert column in head
    assert real.split()[:9] == ["real", "300", "0", "0.9000", "(0.0000)", "0.5500", "(0.0707)", "0.4500", "(0.0707)"]
    assert real.split()[9:] == ["-"] * 4
    assert unguided.split()[5:] == ["0.7500", "(0.0707)", "0.6500", "(0.0707)", "0.020", "3.000", "0.400", "1.500"]
